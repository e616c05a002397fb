"""Changes that people decided on single rows, applied before the rows are checked.

A source file is never edited. A repaired row has a new id, remembers the row it was
(`origin.parents`) and who decided (`origin.author`), and stays on that row's side of the split. A
line that is no row at all is replaced while it is read, by rows kept under the hash of its text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.data.filters.base import at
from tutelage.data.findings import Finding, reason
from tutelage.data.pipeline import Dropped, StepResult

Action = Literal["drop", "label", "answer", "input", "line"]
ACTIONS: tuple[Action, ...] = ("drop", "label", "answer", "input", "line")
_CHAIN = 20  # repairs of repairs of one row, at most


@dataclass(frozen=True)
class Repair:
    """One decided change. `value` is the new label, answer or last user turn; none for drop.

    For a line `example_id` is its `key_of`, and `value` holds rows, one JSON object a line.
    """

    example_id: str
    action: Action
    value: str = ""
    reason: str = ""
    author: str | None = None


def key_of(raw: str) -> str:
    """Return the name under which the repair of a line is kept: 24 hex digits of its text."""
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def rows_in(value: str) -> list[dict[str, Any]]:
    """Return the fields of the rows in a repair of a line."""
    return [json.loads(line) for line in value.split("\n")]


def mended_lines(repairs: Iterable[Repair]) -> dict[str, str]:
    """Return the rows that stand for lines, by the lines' keys; the newest repair counts."""
    return {repair.example_id: repair.value for repair in repairs if repair.action == "line"}


class RepairStep:
    """Applies repairs by example id, the newest of one kind last; drops what was rejected."""

    name = "repairs"

    def __init__(self, repairs: Iterable[Repair], output: OutputFormat | None = None) -> None:
        self._by_id: dict[str, list[Repair]] = {}
        for repair in repairs:
            self._by_id.setdefault(repair.example_id, []).append(repair)
        self._output = output or OutputFormat()

    def run(self, rows: Sequence[Example]) -> StepResult:
        """Return the repaired rows, and those a person rejected as dropped."""
        if not self._by_id:
            return StepResult(list(rows))
        result = StepResult([])
        for row in rows:
            changed, rejected = self._settle(row, result.findings)
            if rejected is not None:
                why = reason("D4-R02", rejected.reason or "rejected by a person")
                result.dropped.append(Dropped(row, "D4-R02", why))
            else:
                result.kept.append(changed)
        return result

    def _settle(self, row: Example, findings: list[Finding]) -> tuple[Example, Repair | None]:
        """Return the row after all its repairs, and the repair that drops it, if one does."""
        current, seen = row, {row.id}
        for _ in range(_CHAIN):
            own = self._by_id.get(current.id, [])
            dropped = next((repair for repair in own if repair.action == "drop"), None)
            if dropped is not None:
                return row, dropped
            repaired = current
            for repair in own:
                repaired = apply(repaired, repair, self._output)
            if _same(repaired, current):
                break
            author = own[-1].author or row.origin.author
            told = {"parents": (row.id,), "author": author}
            current = repaired.model_copy(update={"origin": row.origin.model_copy(update=told)})
            if current.id in seen:  # back to what it was before
                break
            seen.add(current.id)
        if _same(current, row):
            return row, None
        findings.append(at(current, "D4-R01", f"was {row.id}"))
        return current, None


def apply(row: Example, repair: Repair, output: OutputFormat) -> Example:
    """Return the row with one change; a label is written in the project's answer format."""
    if repair.action == "label":
        text = output.render(repair.value)
        return row.model_copy(update={"label": repair.value, "messages": _answered(row, text)})
    if repair.action == "answer":
        label = row.label
        if label is not None:
            label = output.parse(repair.value).label
        return row.model_copy(update={"label": label, "messages": _answered(row, repair.value)})
    places = [i for i, turn in enumerate(row.messages) if turn.role == "user"]
    if repair.action != "input" or not places:
        return row
    turns = list(row.messages)
    turns[places[-1]] = turns[places[-1]].model_copy(update={"content": repair.value})
    return row.model_copy(update={"messages": tuple(turns)})


def _same(one: Example, other: Example) -> bool:
    """Return whether two rows say the same to the letter; ids do not see case and space."""
    return (one.messages, one.label) == (other.messages, other.label)


def _answered(row: Example, text: str) -> tuple[Message, ...]:
    return (*row.context, Message(role="assistant", content=text))
