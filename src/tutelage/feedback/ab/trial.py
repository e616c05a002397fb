"""Read an A/B test from the log: who got which arm, and every metric's values. It does not judge.

Rows are streamed into arrays, so a million requests take some hundred megabytes. A request without
a user is a user of its own, as it is for the router. What the gateway turned away reached no arm.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from tutelage.feedback.ab.effect import Bools, Floats, Ints, Values
from tutelage.feedback.ab.metrics import FEEDBACK, SCORE
from tutelage.feedback.live.scores import SOURCES
from tutelage.feedback.outcome import answer_to_edit, confirms, outcomes
from tutelage.feedback.prices import Price
from tutelage.feedback.signals import Declared
from tutelage.release.evidence import TURNED_AWAY
from tutelage.store.base import Store
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.scores import ScoreRow

_ROWS = 5_000  # fetched at a time
_LEFT = 499  # the client went away
_COLUMNS = (
    RecordRow.id, RecordRow.user, RecordRow.release, RecordRow.at, RecordRow.status,
    RecordRow.latency_ms, RecordRow.first_token_ms, RecordRow.prompt_tokens,
    RecordRow.completion_tokens, RecordRow.checks,
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """Which requests: those that hold `where` from `began` on; the candidate's release, if any."""

    where: tuple[ColumnElement[bool], ...]
    began: datetime
    candidate: str | None


@dataclass(frozen=True)
class Trial:
    """The requests in order of time, N of U users; a user's arm is that of the first request."""

    user: Ints  # (N,) 0..U-1, by first request
    at: Floats  # (N,) seconds since the test began
    arms: Bools  # (U,) the candidate's
    named: Bools  # (U,) whether the client said who it was
    crossed: int  # users who met both arms
    marks: Mapping[str, tuple[Ints, Floats]] = field(default_factory=dict)  # places, values

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.arms)

    def values(self, metric: str) -> Values:
        """Return a metric's values in order of the requests; empty if it has none."""
        places, value = self.marks.get(metric, (np.empty(0, np.int64), np.empty(0)))
        user = self.user[places]
        return Values(user, self.arms[user], value, self.at[places])

    def come(self, metric: str) -> Ints:
        """Return how many users had come at each of the metric's values; shape (N,)."""
        places = self.marks[metric][0] if metric in self.marks else np.empty(0, np.int64)
        return np.asarray((np.maximum.accumulate(self.user) + 1)[places], dtype=np.int64)


def read_trial(store: Store, asked: Asked, declared: Mapping[str, Declared], price: Price) -> Trial:
    """Return the test as the log has it now."""
    reader = _Reader(asked, price)
    with store.session() as session:
        query = select(*_COLUMNS).where(
            *asked.where, RecordRow.arm != "shadow", RecordRow.status.not_in(TURNED_AWAY)
        )
        query = query.order_by(RecordRow.at, RecordRow.id).execution_options(yield_per=_ROWS)
        for row in session.execute(query):
            reader.add(row)
        said = list(_signals(session, asked))
        reader.take_signals(said, declared)
        reader.take_scores(_scores(session, asked))
    reader.take(FEEDBACK, outcomes(store, declared, since=asked.began).items())
    return reader.trial()


def _signals(session: Session, asked: Asked) -> Iterator[Any]:
    query = (
        select(
            SignalRow.record, SignalRow.kind, SignalRow.author, SignalRow.value, answer_to_edit()
        )
        .join(RecordRow, RecordRow.id == SignalRow.record)
        .where(*asked.where)
        .order_by(SignalRow.at, SignalRow.key)
    )
    yield from session.execute(query.execution_options(yield_per=_ROWS))


def _scores(session: Session, asked: Asked) -> Iterator[Any]:
    query = (
        select(ScoreRow.metric, ScoreRow.item, ScoreRow.value)
        .join(RecordRow, RecordRow.id == ScoreRow.item)
        .where(*asked.where, ScoreRow.evaluation.is_(None), ScoreRow.source.in_(SOURCES))
        .order_by(ScoreRow.id)
    )
    yield from session.execute(query.execution_options(yield_per=_ROWS))


class _Reader:
    """Gathers the rows of a test."""

    def __init__(self, asked: Asked, price: Price) -> None:
        self._asked, self._price = asked, price
        self._began = asked.began.timestamp()
        self._users: dict[str, int] = {}
        self._places: dict[str, int] = {}  # record id -> place
        self._user, self._at = array("q"), array("d")
        self._arms, self._named = array("b"), array("b")
        self._crossed: set[int] = set()
        self._answered = array("b")
        self._marks: dict[str, tuple[array[int], array[float]]] = {}

    def add(self, row: Any) -> None:
        """Take the next request."""
        ours = row.release == self._asked.candidate
        name = f"u{row.user}" if row.user else f"r{row.id}"
        user = self._users.setdefault(name, len(self._users))
        if user == len(self._arms):
            self._arms.append(ours)
            self._named.append(bool(row.user))
        elif bool(self._arms[user]) != ours:
            self._crossed.add(user)
        self._places[row.id] = len(self._user)
        self._user.append(user)
        self._at.append(row.at.timestamp() - self._began)
        self._answered.append(row.status < 400)
        self._measure(row)

    def _measure(self, row: Any) -> None:
        place, failed = self._places[row.id], row.status >= 500
        self._put("failed", place, failed)
        cost = self._price(
            row.release, row.prompt_tokens, row.completion_tokens, row.latency_ms / 1000
        )
        if cost is not None:
            self._put("cost", place, cost)
        if failed or row.status == _LEFT:
            return
        self._put("flagged", place, is_flagged(row.checks))
        self._put("latency", place, math.log(max(row.latency_ms, 0.001)))
        self._put("tokens", place, row.completion_tokens)
        if row.first_token_ms is not None:
            self._put("first_token", place, math.log(max(row.first_token_ms, 0.001)))

    def _put(self, metric: str, place: int, value: float) -> None:
        places, values = self._marks.setdefault(metric, (array("q"), array("d")))
        places.append(place)
        values.append(value)

    def take(self, metric: str, values: Iterable[tuple[str, float]]) -> None:
        """Take a metric's values by record; those of other records are left out."""
        for record, value in values:
            place = self._places.get(record)
            if place is not None and math.isfinite(value):
                self._put(metric, place, value)

    def take_scores(self, rows: Iterable[Any]) -> None:
        """Take live scores: an answer's first by a metric counts."""
        seen: set[tuple[str, str]] = set()
        for metric, record, value in rows:
            if value is not None and (metric, record) not in seen:
                seen.add((metric, record))
                self.take(SCORE + metric, [(record, min(1.0, max(0.0, value)))])

    def take_signals(self, rows: Iterable[Any], declared: Mapping[str, Declared]) -> None:
        """Take signals, oldest first: of an author's several the newest counts."""
        said: dict[str, dict[str, dict[str | None, Any]]] = {}  # kind -> record -> author -> value
        explicit: set[str] = set()
        for record, kind, author, value, answer in rows:
            rule = declared.get(kind)
            if rule is not None:
                told = None if confirms(value.get("value"), answer) else value.get("value")
                said.setdefault(kind, {}).setdefault(record, {})[author] = told
                if rule.explicit:
                    explicit.add(record)
        for kind, records in said.items():
            means = {r: _mean(by.values(), declared[kind]) for r, by in records.items()}
            known = {record: value for record, value in means.items() if value is not None}
            if declared[kind].kind in ("flag", "text"):
                self._share(kind, known)
            else:
                self.take(kind, known.items())
        if explicit:
            self._share("told", dict.fromkeys(explicit, 1.0))

    def _share(self, metric: str, told: Mapping[str, float]) -> None:
        """Take what holds of some answers: of those that nothing was said of, it does not."""
        for record, place in self._places.items():
            if self._answered[place]:
                self._put(metric, place, told.get(record, 0.0))

    def trial(self) -> Trial:
        """Return all that was taken."""
        marks = {}
        for metric, (places, values) in self._marks.items():
            at = np.array(places, dtype=np.int64)
            order = np.argsort(at, kind="stable")
            marks[metric] = (at[order], np.array(values, dtype=np.float64)[order])
        return Trial(
            np.array(self._user, dtype=np.int64),
            np.array(self._at, dtype=np.float64),
            np.array(self._arms, dtype=np.bool_),
            np.array(self._named, dtype=np.bool_),
            len(self._crossed),
            marks,
        )


def is_flagged(checks: Mapping[str, Any] | None) -> bool:
    """Return whether a check objected to the answer; those of the request don't count."""
    notes = (checks or {}).items()
    return any(not note.get("ok", True) for name, note in notes if not name.endswith(".request"))


def _mean(values: Iterable[Any], rule: Declared) -> float | None:
    """Return the authors' mean, text counting as 1; None if nobody said a number."""
    if rule.kind == "text":
        return None if all(value is None for value in values) else 1.0
    numbers = [float(v) for v in values if isinstance(v, (bool, int, float))]
    finite = [v for v in numbers if math.isfinite(v)]
    if rule.kind == "flag":
        finite = [min(1.0, max(0.0, v)) for v in finite]
    return sum(finite) / len(finite) if finite else None
