"""Runs code that a model wrote, where it can do little harm; what protects it is always said."""
