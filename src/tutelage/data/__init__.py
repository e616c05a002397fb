"""Curation: what goes into a dataset version, what stays out, and why."""
