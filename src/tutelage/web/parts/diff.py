"""What changed between two texts, word by word, shown as inserted and deleted words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from nicegui import ui
from rapidfuzz.distance import Indel

from tutelage.web.parts.text import hidden, text
from tutelage.web.parts.words import count

_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
_LONGEST = 20_000  # words and spaces of both texts; longer ones are shown whole, old then new


@dataclass(frozen=True)
class Piece:
    """A stretch of text that both have, or only the new or the old one."""

    kind: Literal["same", "inserted", "deleted"]
    text: str


def changes(old: str, new: str) -> list[Piece]:
    """Return the pieces that lead from the old text to the new one."""
    before, after = _TOKEN.findall(old), _TOKEN.findall(new)
    if len(before) + len(after) > _LONGEST:
        return [Piece("deleted", old), Piece("inserted", new)] if old != new else [
            Piece("same", new)]  # fmt: skip
    found: list[Piece] = []
    gone = come = ""
    for step in Indel.opcodes(before, after):
        if step.tag != "equal":
            gone += "".join(before[step.src_start : step.src_end])
            come += "".join(after[step.dest_start : step.dest_end])
            continue
        found += _changed(gone, come)
        gone = come = ""
        found.append(Piece("same", "".join(before[step.src_start : step.src_end])))
    return found + _changed(gone, come)


def _changed(gone: str, come: str) -> list[Piece]:
    return [piece for piece in (Piece("deleted", gone), Piece("inserted", come)) if piece.text]


def word_diff(old: str, new: str) -> ui.element:
    """Show what changed. Screen readers hear "inserted" and "deleted" before such words."""
    with ui.element("div").classes("tt-passage tt-diff") as box:
        for piece in changes(old, new):
            if piece.kind == "same":
                text("span", piece.text)
                continue
            tag = "ins" if piece.kind == "inserted" else "del"
            with ui.element(tag):
                hidden(f"{piece.kind}: ")
                text("span", piece.text)
    return box


def summary(old: str, new: str) -> str:
    """Return how much changed: "3 words inserted, 1 deleted", or that no word did."""
    if old == new:
        return "no change"
    many = {"inserted": 0, "deleted": 0}
    for piece in changes(old, new):
        if piece.kind != "same":
            many[piece.kind] += len(re.findall(r"\w+", piece.text))
    said = [(number, kind) for kind, number in many.items() if number]
    if not said:
        return "only punctuation or spaces changed"
    (number, kind), *rest = said
    told = [f"{count(number, 'word')} {kind}", *(f"{more:,} {name}" for more, name in rest)]
    return ", ".join(told)
