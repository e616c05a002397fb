"""Rows that may not fail, golden sets, and the answers a release must reproduce when loaded.

Hard asserts, kept apart from the statistics: each row passes or does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.example import Example, Message
from tutelage.core.lines import lines_of
from tutelage.core.output import OutputFormat
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.base import Score
from tutelage.evaluation.significance import detectable_rate

_SHORTEST_ID = 6
_FEW, _MANY = 0.05, 0.20  # shares of rows whose outcome differs between two models
_INPUTS, _ANSWERS = ("input", "question", "text", "prompt"), ("expected", "output", "answer")


@dataclass(frozen=True)
class GoldenRow:
    """One prompt (without the project's system message) with the text that was written for it."""

    item: str
    messages: tuple[Message, ...]
    text: str


@dataclass(frozen=True)
class GoldenSet:
    """A golden set as a candidate met it: how many rows were asked, and which failed."""

    name: str
    rows: int
    failed: tuple[str, ...]  # the inputs, shortened
    digest: str = ""  # SHA-256 of the file

    @property
    def power(self) -> str:
        """What so many rows could tell if they were a statistic, in one sentence."""
        return power_sentence(self.rows)


def power_sentence(rows: int) -> str:
    """Return which regression a set of `rows` rows can show with 80 % power, 5 to 20 % differing.

    The paired difference of two rates (significance.detectable_rate), in points.
    """
    low, high = (detectable_rate(rows, share) * 100 for share in (_FEW, _MANY))
    return f"a {rows}-row golden set can only gate a {low:.0f}–{high:.0f}-point regression"


def read_set(path: Path, output: OutputFormat) -> list[Example]:
    """Return the rows of a golden set, one JSON object a line.

    A row holds `messages` that end with the expected answer, or `input` and `expected`. An
    expected label is put into the project's shape. Raises DataError naming the line.
    """
    try:
        lines = lines_of(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "the golden set can't be read", where=str(path), fix="Check evaluate.criteria"
        ) from error
    rows = [
        _row(line, f"{path}:{number}", output)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not rows:
        raise DataError("the golden set is empty", where=str(path), fix="Add rows to it")
    return rows


def _row(line: str, where: str, output: OutputFormat) -> Example:
    fix = 'Write {"input": "…", "expected": "…"} or {"messages": […]} on each line'
    try:
        values: Any = json.loads(line)
        turns = values.get("messages")
        if turns is None:
            asked = next(str(values[key]) for key in _INPUTS if key in values)
            answer = next(values[key] for key in _ANSWERS if key in values)
            turns = [{"role": "user", "content": asked}, _answer(answer, output)]
        row = Example(messages=tuple(Message.model_validate(turn) for turn in turns))
    except (ValueError, AttributeError, StopIteration, ValidationError) as error:
        raise DataError("the golden row can't be used", where=where, fix=fix) from error
    if row.answer is None:
        raise DataError("the golden row has no expected answer", where=where, fix=fix)
    if not output.labels:
        return row
    found = output.parse(row.answer)
    if found.label is None:
        raise DataError(
            f"the golden row's expected answer can't be right: {found.problem}",
            where=where,
            fix=fix,
        )
    return row.model_copy(update={"label": found.label})


def _answer(expected: Any, output: OutputFormat) -> dict[str, str]:
    if not isinstance(expected, str):
        return {"role": "assistant", "content": json.dumps(expected, ensure_ascii=False)}
    whole = output.parse(expected).label is not None
    return {"role": "assistant", "content": expected if whole else output.render(expected)}


def judge_set(
    name: str, rows: Sequence[Example], scores: Mapping[str, Score], digest: str
) -> GoldenSet:
    """Return the set with the rows whose score is below 1 or missing."""
    bad = failures([row.id for row in rows], scores)
    shown = {row.id: row.input_text for row in rows}
    return GoldenSet(name, len(rows), tuple(_short(shown[item]) for item in bad), digest)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"


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
