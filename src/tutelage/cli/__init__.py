"""Typer commands: one file a noun. Parses and prints, decides nothing."""
