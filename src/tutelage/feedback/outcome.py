"""How good an answer was, by what its users said and did: one number from 0 (bad) to 1 (good).

Of each author and signal the newest counts. Its value is put on the scale from 0 to 1 by what the
signal is declared as, turned round where more is worse, and averaged by weight. An edit that
changes the answer counts 0, one that confirms it 1. It decides nothing about training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Select, case, null, select

from tutelage.core.example import normalise
from tutelage.feedback.signals import EDIT, Declared
from tutelage.store.base import Store
from tutelage.store.records import RecordRow, SignalRow

_AT_ONCE = 500  # ids in one question to the store
_ROWS = 10_000  # fetched at a time


class Said(Protocol):
    """A signal as this module reads it: a SignalRow, or the same columns of one."""

    @property
    def kind(self) -> Any:
        """The signal's name."""
        ...

    @property
    def value(self) -> Any:
        """{"value": what was said}."""
        ...

    @property
    def author(self) -> Any:
        """Who said so, or None."""
        ...

    @property
    def at(self) -> Any:
        """When."""
        ...

    @property
    def key(self) -> Any:
        """What decides between two of one moment."""
        ...


def score_of(
    signals: Sequence[Said], declared: Mapping[str, Declared], *, answer: str | None = None
) -> float | None:
    """Return how good an answer was, 0 (bad) to 1 (good), or None if nothing tells.

    `signals` are those on one record. With the `answer` that was given, an edit that says the same
    counts as praise; without it every edit counts as a correction.
    """
    newest: dict[tuple[str | None, str], Said] = {}
    for signal in sorted(signals, key=lambda s: (s.at, s.key)):
        newest[signal.author, signal.kind] = signal
    total = weights = 0.0
    for (_, kind), signal in newest.items():
        rule = declared.get(kind)
        if rule is None or not rule.direction or not rule.weight:
            continue
        good = goodness(signal.value["value"], rule, answer=answer)
        if good is not None:
            total += rule.weight * good
            weights += rule.weight
    return total / weights if weights else None


def goodness(value: Any, rule: Declared, *, answer: str | None = None) -> float | None:
    """Return what one value says, 0 (bad) to 1 (good), or None if it says nothing."""
    if rule.name == EDIT:
        return 1.0 if answer is not None and same_answer(str(value), answer) else 0.0
    if rule.direction == 0 or not isinstance(value, (bool, int, float)):
        return None
    number = float(value)
    if not math.isfinite(number):
        return None
    share = min(max((number - rule.low) / (rule.high - rule.low), 0.0), 1.0)
    return share if rule.direction > 0 else 1.0 - share


def same_answer(one: str, two: str) -> bool:
    """Return whether two answers are the same, as JSON or as words."""
    if normalise(one) == normalise(two):
        return True
    try:
        return bool(json.loads(one) == json.loads(two))
    except (ValueError, RecursionError):
        return False


def answer_to_edit() -> ColumnElement[Any]:
    """Return the column `response`: the answer that an edit is about, null for other signals."""
    return case((SignalRow.kind == EDIT, RecordRow.response), else_=null()).label("response")


def confirms(edit: Any, answer: str | None) -> bool:
    """Return whether an edit says what was answered; `answer` is null for other signals."""
    return answer is not None and same_answer(str(edit), answer)


def outcomes(
    store: Store,
    declared: Mapping[str, Declared],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    records: Iterable[str] | None = None,
) -> dict[str, float]:
    """Return the score of every record that its users told something of, by record id.

    `since` (included) and `until` (not included) bound the record's time. Signals whose record has
    not come are left out. Rows are streamed: a million signals take no more memory than the result.
    """
    query = _query(declared, since, until)
    found: dict[str, float] = {}
    for part in _parts(query, records):
        with store.session() as session:
            rows = session.execute(part.execution_options(yield_per=_ROWS))
            for name, group in groupby(rows, key=lambda row: row.record):
                told = list(group)
                score = score_of(told, declared, answer=_answer(told))
                if score is not None:
                    found[name] = score
    return found


def _answer(told: Sequence[Any]) -> str | None:
    return next((row.response for row in told if row.response), None)


def _query(
    declared: Mapping[str, Declared], since: datetime | None, until: datetime | None
) -> Select[Any]:
    names = [name for name, rule in declared.items() if rule.direction and rule.weight]
    query = (
        select(
            SignalRow.record, SignalRow.kind, SignalRow.value, SignalRow.author, SignalRow.at,
            SignalRow.key, answer_to_edit(),
        )
        .join(RecordRow, RecordRow.id == SignalRow.record)
        .where(SignalRow.kind.in_(names))
        .order_by(SignalRow.record)
    )  # fmt: skip
    if since is not None:
        query = query.where(RecordRow.at >= since)
    if until is not None:
        query = query.where(RecordRow.at < until)
    return query


def _parts(query: Select[Any], records: Iterable[str] | None) -> Iterator[Select[Any]]:
    if records is None:
        yield query
        return
    names = sorted(set(records))
    for start in range(0, len(names), _AT_ONCE):
        yield query.where(SignalRow.record.in_(names[start : start + _AT_ONCE]))
