"""Reads the scores that live evaluation gave: the one way in for everything built on them.

It streams; a million scores never lie in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from tutelage.store.base import Store
from tutelage.store.live import LiveRow
from tutelage.store.scores import ScoreRow

SOURCES = ("judge", "rule", "metric")
_CHUNK = 2_000  # rows read at once


@dataclass(frozen=True, slots=True)
class LiveScore:
    """One score of one served answer: 0 (bad) to 1 (good), None where it could not be scored.

    `id` rises with every score that is kept; `at` is when the request ended.
    """

    id: int
    record: str
    deployment: str
    release: str
    arm: str
    metric: str
    value: float | None
    source: str  # judge, rule, metric
    at: datetime
    evidence: Mapping[str, Any]


def live_scores(
    store: Store,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    release: str | None = None,
    metric: str | None = None,
    after: int = 0,
) -> Iterator[LiveScore]:
    """Yield the scores in the order in which they were given.

    `since` and `until` bound the time of the request, `release` is a whole id, and `after` the id
    of the last score that was read before.
    """
    query = (
        select(
            ScoreRow.id, ScoreRow.item, LiveRow.deployment, LiveRow.release, LiveRow.arm,
            ScoreRow.metric, ScoreRow.value, ScoreRow.source, LiveRow.at, ScoreRow.evidence,
        )
        .join(LiveRow, LiveRow.record == ScoreRow.item)
        .where(ScoreRow.evaluation.is_(None), ScoreRow.source.in_(SOURCES))
        .order_by(ScoreRow.id)
        .limit(_CHUNK)
    )  # fmt: skip
    if since is not None:
        query = query.where(LiveRow.at >= since)
    if until is not None:
        query = query.where(LiveRow.at < until)
    if release is not None:
        query = query.where(LiveRow.release == release)
    if metric is not None:
        query = query.where(ScoreRow.metric == metric)
    for row in _in_chunks(store, query, after):
        yield LiveScore(*row)


def score_values(
    store: Store, release: str, after: int = 0
) -> Iterator[tuple[int, str, str, float]]:
    """Yield (id, deployment, metric, value) of a release's scores, those without a value left out.

    It is what statistics need of `live_scores`, at a fraction of the work.
    """
    query = (
        select(ScoreRow.id, LiveRow.deployment, ScoreRow.metric, ScoreRow.value)
        .join(LiveRow, LiveRow.record == ScoreRow.item)
        .where(
            ScoreRow.evaluation.is_(None),
            ScoreRow.candidate == release,
            ScoreRow.source.in_(SOURCES),
            ScoreRow.value.is_not(None),
        )
        .order_by(ScoreRow.id)
        .limit(_CHUNK)
    )
    for number, deployment, metric, value in _in_chunks(store, query, after):
        yield number, deployment, metric, float(value)


def _in_chunks(store: Store, query: Any, after: int) -> Iterator[Any]:
    while True:
        with store.session() as session:
            rows = session.execute(query.where(ScoreRow.id > after)).all()
        yield from rows
        if len(rows) < _CHUNK:
            return
        after = rows[-1].id
