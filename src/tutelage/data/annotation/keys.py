"""What a press of keys means in a labelling session. Pure: it draws and keeps nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tutelage.core.errors import nearest

Kind = Literal[
    "label", "write", "accept", "edit", "skip", "unsure", "comment", "guideline", "back", "quit",
    "odd",
]  # fmt: skip
COMMANDS: dict[str, Kind] = {
    "s": "skip",
    "u": "unsure",
    "c": "comment",
    "e": "edit",
    "b": "back",
    "q": "quit",
    "?": "guideline",
}
ONE_KEY = 9  # labels that have a number key of their own


@dataclass(frozen=True)
class Press:
    """What was asked for: `text` is the label or the written answer, `why` says what is odd."""

    kind: Kind
    text: str = ""
    why: str = ""


def read_press(text: str, labels: Sequence[str], *, has_draft: bool) -> Press:
    """Return what `text` (a key, or a line) means.

    A number is the label at that place (1-based), a word a label or the only one that starts
    so. Without a list of labels any other text is the answer. Enter accepts the draft.
    """
    word = text.strip()
    if not word:
        if has_draft:
            return Press("accept")
        return Press("odd", why="there is no draft to accept")
    if not word.isprintable():
        return Press("odd", why="that key means nothing here")
    if word.lower() in COMMANDS and word not in labels:
        return Press(COMMANDS[word.lower()])
    if not labels:
        return Press("write", word)
    if word.isdigit() and word not in labels:
        place = int(word)
        if 1 <= place <= len(labels):
            return Press("label", labels[place - 1])
        return Press("odd", why=f"there is no label {place}, they go from 1 to {len(labels)}")
    return _named(word, labels)


def _named(word: str, labels: Sequence[str]) -> Press:
    folded = {label.casefold(): label for label in labels}
    if word in labels:
        return Press("label", word)
    if word.casefold() in folded:
        return Press("label", folded[word.casefold()])
    starts = [label for label in labels if label.casefold().startswith(word.casefold())]
    if len(starts) == 1:
        return Press("label", starts[0])
    if starts:
        return Press("odd", why=f"{word!r} starts {len(starts)} labels: {', '.join(starts[:5])}")
    near = nearest(word.casefold(), list(folded))
    hint = f", did you mean {folded[near]!r}" if near else ""
    return Press("odd", why=f"{word[:40]!r} is no label and no key{hint}")
