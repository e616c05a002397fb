"""Checks on requests and responses."""
