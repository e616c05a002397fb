"""Prompts and releases: drafted, made, imported, verified, traced back to rows and people."""
