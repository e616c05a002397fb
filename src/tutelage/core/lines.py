"""The lines of JSON Lines: `str.splitlines` also ends one at letters that JSON keeps."""

from __future__ import annotations


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, ended by line feeds alone: U+2028 may stand inside a string."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
