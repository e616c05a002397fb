"""Tables and small pieces of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

Cells = Sequence[str]


def table(head: Cells, rows: Sequence[Cells]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|") or " "


def code(text: object) -> str:
    """Return text in the code font."""
    return f"`{text}`"


def sentence(text: str) -> str:
    """Return text with a capital letter and a full stop."""
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ":", ")", "?")) else ".")


def absent(title: str) -> str:
    """Return the page of a part whose module is not there."""
    return f"# {title}\n\nThis part is not in this version yet.\n"
