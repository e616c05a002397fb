"""Rows that may not fail, and the golden answers a release must reproduce when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tutelage.core.errors import ConfigError
from tutelage.core.example import Example, Message
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.base import Score

_SHORTEST_ID = 6


@dataclass(frozen=True)
class GoldenRow:
    """One prompt (without the project's system message) with the text that was written for it."""

    item: str
    messages: tuple[Message, ...]
    text: str


def resolve(ids: Sequence[str], rows: Sequence[Example]) -> list[str]:
    """Return the full ids of the must-pass rows; at least six first digits name a row.

    Raises ConfigError for an id that is no test row, or several.
    """
    found = []
    for short in ids:
        hits = [row.id for row in rows if len(short) >= _SHORTEST_ID and row.id.startswith(short)]
        if len(hits) != 1:
            problem = "names several test rows" if hits else "is not the id of a test row"
            raise ConfigError(
                f"must_pass: {short!r} {problem}",
                where="tutelage.yaml, evaluate.must_pass",
                fix="Take ids from test.jsonl of the dataset version, or from the report",
            )
        found.append(hits[0])
    return found


def failures(ids: Sequence[str], scores: Mapping[str, Score]) -> list[str]:
    """Return the must-pass rows whose score is below 1 or missing, in order."""
    return [i for i in ids if i not in scores or (scores[i].value or 0.0) < 1.0]


def pick_golden(
    rows: Sequence[Example],
    answers: Mapping[str, RowResult],
    scores: Mapping[str, Score],
    count: int = 5,
) -> list[GoldenRow]:
    """Return up to `count` rows answered right, labels spread, as a release's self-check."""
    right = [row for row in rows if row.id in scores and scores[row.id].value == 1.0]
    right.sort(key=lambda row: row.id)
    picked: list[Example] = []
    seen: set[str] = set()
    for fresh in (True, False):
        for row in right:
            if len(picked) < count and row not in picked and (not fresh or row.label not in seen):
                picked.append(row)
                seen.add(row.label or row.id)
    return [GoldenRow(row.id, row.context, answers[row.id].text) for row in picked]
