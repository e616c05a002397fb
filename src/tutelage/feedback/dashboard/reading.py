"""Read what every release of a deployment did, stretch by stretch. It judges nothing.

Records are streamed; of a million of them only their times stay in memory. Days whose records were
deleted (serving/records/retention.py) keep their counts, tokens and cost, and have no more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from tutelage.core.config import Project
from tutelage.feedback.ab.trial import is_flagged
from tutelage.feedback.dashboard.cells import Cell, Mean
from tutelage.feedback.dashboard.stretches import Stretches
from tutelage.feedback.live.scores import live_scores
from tutelage.feedback.outcome import answer_to_edit, confirms, outcomes
from tutelage.feedback.prices import Price, prices
from tutelage.feedback.signals import Declared, declare
from tutelage.release.evidence import TURNED_AWAY
from tutelage.store.base import Store
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.usage import UsageRow

_ROWS = 5_000  # fetched at a time
_LEFT = 499  # the client went away
_SHADOW = "shadow"


@dataclass(frozen=True)
class Asked:
    """One deployment, from `since` to before `until`, cut into `cut`."""

    deployment: str
    since: datetime
    until: datetime
    cut: Stretches


@dataclass
class Found:
    """Cells by (release id, stretch); signals with their rules; what was left out."""

    cells: dict[tuple[str, int], Cell] = field(default_factory=dict)
    signals: dict[str, Declared] = field(default_factory=dict)
    copies: int = 0  # answers to copies of requests, seen by nobody
    turned_away: int = 0  # by the gateway, before any release
    forgotten: set[str] = field(default_factory=set)  # days whose records were deleted

    def cell(self, release: str, place: int) -> Cell:
        """Return a release's cell, made if it is not there."""
        return self.cells.setdefault((release, place), Cell())


def read(store: Store, project: Project, asked: Asked) -> Found:
    """Return all cells of the span."""
    declared, price = declare(project.feedback), prices(store, project)
    verdicts = outcomes(store, declared, since=asked.since, until=asked.until)
    found = Found()
    _records(store, asked, found, price, verdicts)
    _signals(store, asked, found, declared)
    _scores(store, asked, found)
    _deleted(store, asked, found, price)
    return found


def _records(
    store: Store, asked: Asked, found: Found, price: Price, verdicts: Mapping[str, float]
) -> None:
    columns = (
        RecordRow.id, RecordRow.release, RecordRow.arm, RecordRow.at, RecordRow.status,
        RecordRow.latency_ms, RecordRow.first_token_ms, RecordRow.prompt_tokens,
        RecordRow.completion_tokens, RecordRow.checks,
    )  # fmt: skip
    query = select(*columns).where(
        RecordRow.deployment == asked.deployment,
        RecordRow.at >= asked.since,
        RecordRow.at < asked.until,
    )
    with store.session() as session:
        for row in session.execute(query.execution_options(yield_per=_ROWS)):
            if row.arm == _SHADOW:
                found.copies += 1
            elif row.status in TURNED_AWAY:
                found.turned_away += 1
            else:
                place = asked.cut.place(row.at.timestamp())
                if place is not None:
                    _count(found.cell(row.release, place), row, price, verdicts.get(row.id))


def _count(cell: Cell, row: Any, price: Price, verdict: float | None) -> None:
    cell.requests += 1
    cell.seen += 1
    cell.tokens += row.prompt_tokens + row.completion_tokens
    cost = price(row.release, row.prompt_tokens, row.completion_tokens, row.latency_ms / 1000)
    if cost is not None:
        cell.priced += 1
        cell.cost += cost
    if verdict is not None:
        cell.verdict.add(verdict)
    if row.status >= 500:
        cell.failed += 1
    elif row.status != _LEFT:
        cell.answered += 1
        cell.flagged += is_flagged(row.checks)
        cell.latency.append(row.latency_ms)
        if row.first_token_ms is not None:
            cell.first.append(row.first_token_ms)


def _signals(store: Store, asked: Asked, found: Found, declared: Mapping[str, Declared]) -> None:
    """Add signals: of an author's several on one record the newest counts."""
    query = (
        select(
            SignalRow.record, SignalRow.kind, SignalRow.author, SignalRow.value,
            RecordRow.release, RecordRow.at, answer_to_edit(),
        )
        .join(RecordRow, RecordRow.id == SignalRow.record)
        .where(
            RecordRow.deployment == asked.deployment,
            RecordRow.at >= asked.since,
            RecordRow.at < asked.until,
            RecordRow.arm != _SHADOW,
            RecordRow.status < 400,
        )
        .order_by(SignalRow.at, SignalRow.key)
    )  # fmt: skip
    newest: dict[tuple[str, str, str | None], tuple[str, int, float]] = {}
    with store.session() as session:
        for row in session.execute(query.execution_options(yield_per=_ROWS)):
            rule, place = declared.get(row.kind), asked.cut.place(row.at.timestamp())
            value = None if rule is None else _number(row.value.get("value"), rule)
            if confirms(row.value.get("value"), row.response):
                value = 0.0  # nothing was corrected
            if rule is not None and value is not None and place is not None:
                found.signals[row.kind] = rule
                newest[row.record, row.kind, row.author] = (row.release, place, value)
    by_record: dict[tuple[str, str], list[float]] = {}
    where: dict[str, tuple[str, int]] = {}
    for (record, kind, _), (release, place, value) in newest.items():
        by_record.setdefault((record, kind), []).append(value)
        where[record] = (release, place)
    for (record, kind), values in by_record.items():
        cell = found.cell(*where[record])
        cell.signals.setdefault(kind, Mean()).add(sum(values) / len(values))


def _number(value: Any, rule: Declared) -> float | None:
    if rule.kind == "text":
        return 1.0
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
        return None
    return min(1.0, max(0.0, float(value))) if rule.kind == "flag" else float(value)


def _scores(store: Store, asked: Asked, found: Found) -> None:
    for score in live_scores(store, since=asked.since, until=asked.until):
        if score.deployment != asked.deployment or score.arm == _SHADOW or score.value is None:
            continue
        place = asked.cut.place(score.at.timestamp())
        if place is not None:
            cell = found.cell(score.release, place)
            cell.scores.setdefault(score.metric, Mean()).add(score.value)


def _deleted(store: Store, asked: Asked, found: Found, price: Price) -> None:
    first, last = (f"{end.astimezone(UTC):%Y-%m-%d}" for end in (asked.since, asked.until))
    query = select(UsageRow).where(
        UsageRow.deployment == asked.deployment,
        UsageRow.day >= first,
        UsageRow.day <= last,
        UsageRow.arm != _SHADOW,
    )
    with store.session() as session:
        for row in session.scalars(query):
            at = datetime.fromisoformat(row.day).replace(tzinfo=UTC)
            place = asked.cut.place(max(at.timestamp(), asked.cut.start))
            if place is None:
                continue
            found.forgotten.add(row.day)
            cell = found.cell(row.release, place)
            cell.requests += row.requests
            cell.tokens += row.prompt_tokens + row.completion_tokens
            cost = price(row.release, row.prompt_tokens, row.completion_tokens, row.seconds)
            if cost is not None:
                cell.priced += row.requests
                cell.cost += cost
