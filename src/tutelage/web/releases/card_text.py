"""A model card on the page: its headings, lists and tables, every word as text, never as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from nicegui import ui

from tutelage.web.parts.table import plain_table
from tutelage.web.parts.text import text

_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_HEADING = re.compile(r"(#{1,4}) (.*)")
_MARKS = re.compile(r"[`*]{1,3}")


def card_text(markdown: str) -> None:
    """Draw the card without its metadata block; what is not a known form is a paragraph."""
    for kind, lines in _blocks(_FRONT.sub("", markdown)):
        if kind == "heading":
            marks, _, words = lines[0].partition(" ")
            text(f"h{min(6, len(marks) + 1)}", words)
        elif kind == "list":
            with ui.element("ul").classes("list-disc pl-6"):
                for line in lines:
                    text("li", _plain(line[2:]))
        elif kind == "table":
            _table(lines)
        elif kind == "quote":
            text("blockquote", "\n".join(line[1:].strip() for line in lines), "tt-passage")
        elif kind == "code":
            text("pre", "\n".join(lines), "tt-command")
        else:
            text("p", _plain(" ".join(lines)))


def _blocks(markdown: str) -> Iterator[tuple[str, list[str]]]:
    """Return the card's blocks: (kind, lines), kinds heading, list, table, quote, code, text."""
    found: list[str] = []
    last = ""
    fenced = False
    for line in markdown.splitlines():
        if line.startswith("```"):
            if found:
                yield last, found
            found, last, fenced = [], "code", not fenced
            continue
        kind = "code" if fenced else _kind(line)
        if kind != last or kind == "heading":
            if found and last:
                yield last, found
            found, last = [], kind
        if kind:
            found.append(line)
    if found and last:
        yield last, found


def _kind(line: str) -> str:
    if not line.strip():
        return ""
    if _HEADING.fullmatch(line):
        return "heading"
    starts = {"- ": "list", "* ": "list", "|": "table", ">": "quote"}
    return next((kind for mark, kind in starts.items() if line.startswith(mark)), "text")


def _table(lines: Sequence[str]) -> None:
    rows = [[_plain(cell.strip()) for cell in line.strip().strip("|").split("|")] for line in lines]
    head, *body = [row for place, row in enumerate(rows) if place != 1]  # 1: the dashes
    plain_table(head, body, name="Table of the model card")


def _plain(words: str) -> str:
    return _MARKS.sub("", words)
