"""Which of a teacher's drafts become training rows: every rejected one has its reason.

A draft must have the project's shape, keep numbers and negations where the meaning must stay, add
something to the rows there are, and lie far from every validation and test row.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tutelage.core.example import Example, Message, Origin, normalise
from tutelage.data.augment.base import Draft, last_user
from tutelage.data.dedup.near import NearDuplicates
from tutelage.data.filters.base import Filter
from tutelage.data.findings import catalogue, reason
from tutelage.data.leakage import leak_certificate
from tutelage.data.pipeline import Dropped

HELD_OUT_COSINE = 0.85  # of character n-grams, as splits keep apart
_SHORT, _LONG = 0.3, 3.5  # length of a rewording over its original's
_SAME_MEANING = ("paraphrase", "back_translation")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = re.compile(r"\b(?:not|no|never|none|without|cannot|neither|nor)\b|n['’]t\b", re.I)


@dataclass
class Sifted:
    """The drafts that became rows, and those that did not, with reasons."""

    kept: list[Example] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)


@dataclass(frozen=True)
class Known:
    """The rows a draft is held against: `train` without augmented rows, `held_out` the rest."""

    train: Sequence[Example]
    held_out: Sequence[Example]


def sift(
    drafts: Iterable[Draft],
    known: Known,
    layers: Sequence[Filter],
    *,
    per_row: int = 2,
    author: str | None = None,
) -> Sifted:
    """Return which drafts are believed. `layers` are the project's row filters."""
    by_id = {row.id: row for row in known.train}
    result = Sifted()
    alive: list[Example] = []
    for draft in drafts:
        parent = by_id.get(draft.parents[0]) if draft.parents else None
        row = as_example(draft, parent, author)
        problem = _shape(row, layers) or _meaning(draft, parent)
        if problem is not None:
            result.dropped.append(dropped(row, *problem))
        else:
            alive.append(row)
    alive = _new_only(alive, known, result)
    alive = far_from_held_out(alive, known.held_out, result)
    _cap(alive, per_row, result)
    return result


def as_example(draft: Draft, parent: Example | None, author: str | None) -> Example:
    """Return the draft as a row: the parent's turns with a new last user turn and answer."""
    turns = list(parent.context) if parent and draft.method in _SAME_MEANING else []
    places = [i for i, turn in enumerate(turns) if turn.role == "user"]
    if places:
        turns[places[-1]] = Message(role="user", content=draft.input)
    else:
        turns = [Message(role="user", content=draft.input)]
    return Example(
        messages=(*turns, Message(role="assistant", content=draft.answer)),
        label=draft.label,
        group=parent.group if parent else None,
        time=parent.time if parent else None,
        meta={"augment": draft.method},
        origin=Origin(
            kind="augmented",
            source=f"{draft.method} of {draft.parents[0] if draft.parents else 'a text'}",
            parents=draft.parents,
            author=author,
        ),
    )


def dropped(row: Example, finding: str, detail: str, cause: str | None = None) -> Dropped:
    return Dropped(row, finding, reason(finding, detail), cause)


def _shape(row: Example, layers: Sequence[Filter]) -> tuple[str, str] | None:
    """Return what the project's own row filters say against the draft."""
    for layer in layers:
        for finding in layer.check(row):
            if catalogue()[finding.id].severity == "error" or finding.id == "D2-C03":
                return "D11-F01", f"{finding.detail} ({finding.id})"
    return None


def _meaning(draft: Draft, parent: Example | None) -> tuple[str, str] | None:
    """Return whether a rewording lost a number or a negation, or grew out of proportion."""
    if parent is None or draft.method not in _SAME_MEANING:
        return None
    old, new = last_user(parent), draft.input
    if Counter(_NUMBER.findall(old)) != Counter(_NUMBER.findall(new)):
        return "D11-F02", "the numbers are not those of the original"
    if bool(_NEGATION.search(old)) != bool(_NEGATION.search(new)):
        return "D11-F02", "a negation came or went"
    ratio = len(new) / max(1, len(old))
    if not _SHORT <= ratio <= _LONG:
        return "D11-F03", f"{ratio:.1f} times as long as the original"
    return None


def _new_only(rows: list[Example], known: Known, result: Sifted) -> list[Example]:
    """Leave out what says nothing new: copies of training rows and of earlier drafts."""
    old = [row.input_text for row in known.train]
    seen = {normalise(text): row for text, row in zip(old, known.train, strict=True)}
    fresh: list[Example] = []
    for row in rows:
        twin = seen.setdefault(normalise(row.input_text), row)
        if twin is row:
            fresh.append(row)
        else:
            result.dropped.append(dropped(row, "D11-D01", "an exact copy", twin.id))
    texts = [*old, *(row.input_text for row in fresh)]
    names = [*known.train, *fresh]
    doubled: dict[int, int] = {}
    for one, two in NearDuplicates(guard=False).pairs(texts):
        later = int(max(one, two))
        if later >= len(old) and int(min(one, two)) not in doubled:
            doubled.setdefault(later, int(min(one, two)))
    kept = []
    for index, row in enumerate(fresh, start=len(old)):
        if index in doubled:
            cause = names[doubled[index]].id
            result.dropped.append(dropped(row, "D11-D01", "almost the same letters", cause))
        else:
            kept.append(row)
    return kept


def far_from_held_out(
    rows: list[Example], held_out: Sequence[Example], result: Sifted
) -> list[Example]:
    """Return the rows that lie far from every held-out row; the others are dropped as leaks."""
    if not rows or not held_out:
        return rows
    ours = [row.input_text for row in rows]
    theirs = [row.input_text for row in held_out]
    found = leak_certificate(train=theirs, test=ours, threshold=HELD_OUT_COSINE)
    close = {pair.test: pair.train for pair in found.pairs}
    for one, two in NearDuplicates(guard=False).pairs([*ours, *theirs]):
        low, high = int(min(one, two)), int(max(one, two))
        if low < len(ours) <= high:
            close.setdefault(low, high - len(ours))
    kept = []
    for index, row in enumerate(rows):
        if index in close:
            cause = held_out[close[index]].id
            result.dropped.append(dropped(row, "D11-L01", "close to a held-out row", cause))
        else:
            kept.append(row)
    return kept


def _cap(rows: list[Example], per_row: int, result: Sifted) -> None:
    """Keep at most `per_row` drafts whose first parent is the same."""
    taken: Counter[str] = Counter()
    for row in rows:
        parent = row.origin.parents[0] if row.origin.parents else row.id
        taken[parent] += 1
        if taken[parent] > per_row:
            result.dropped.append(
                dropped(row, "D11-C01", f"its parent has {per_row} already", parent)
            )
        else:
            result.kept.append(row)
