"""Read what both arms of a rollout did from the request log, and its scores. It does not judge."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.release.arms import ArmLog, Sample, ScoreLog, Scores
from tutelage.release.rollout import Counts
from tutelage.store.base import Store
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.releases import RolloutRow
from tutelage.store.scores import ScoreRow

# Answered by the gateway itself: no release had a part in it.
TURNED_AWAY = (400, 401, 402, 403, 404, 413, 429)
HISTORY = 500  # requests of the stable release before the rollout, to place thresholds
CANDIDATE = ("canary", "shadow")  # arms that the candidate answered for
RATING = "rating"  # people's ratings, as a metric beside the scores

_COLUMNS = (
    RecordRow.at,
    RecordRow.latency_ms,
    RecordRow.status,
    RecordRow.checks,
    RecordRow.step,
    RecordRow.arm,
)
_REACHED = RecordRow.status.not_in(TURNED_AWAY)

Memory = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Facts:
    """What the engine tells besides the log: memory samples since the candidate was loaded and
    from before, as ratios by kind, and a fault that needs no statistics.
    """

    memory: Memory = field(default_factory=dict)
    memory_before: Memory = field(default_factory=dict)
    fault: str | None = None


@dataclass(frozen=True)
class Evidence:
    """All that a verdict is made of."""

    baseline: ArmLog
    canary: ArmLog
    scores: ScoreLog = field(default_factory=dict)


def read_evidence(store: Store, rollout: RolloutRow, facts: Facts | None = None) -> Evidence:
    """Return what both arms did since the rollout began, with the scores of their answers.

    A store that can't be read gives logs whose `problem` says so: the verdict is then
    collector_error.
    """
    facts = facts or Facts()
    try:
        with store.session() as session:
            found = _read(session, rollout)
    except DBAPIError as error:
        problem = f"the request log can't be read ({str(error.orig).splitlines()[0]})"
        broken = ArmLog.of((), problem=problem)
        return Evidence(broken, broken)
    return Evidence(
        replace(found.baseline, memory=dict(facts.memory_before)),
        replace(found.canary, memory=dict(facts.memory), fault=facts.fault),
        found.scores,
    )


def _read(session: Session, rollout: RolloutRow) -> Evidence:
    rows = session.execute(
        select(*_COLUMNS).where(RecordRow.rollout == rollout.id, _REACHED).order_by(RecordRow.at)
    ).all()
    old = session.execute(
        select(*_COLUMNS)
        .where(
            RecordRow.deployment == rollout.deployment,
            RecordRow.release == rollout.baseline,
            RecordRow.rollout.is_distinct_from(rollout.id),
            RecordRow.arm != "shadow",
            RecordRow.at < rollout.created_at,
            _REACHED,
        )
        .order_by(RecordRow.at.desc())
        .limit(HISTORY)
    ).all()
    stable = [_sample(row, -1) for row in old]
    stable += [_sample(row) for row in rows if row.arm not in CANDIDATE]
    canary = [_sample(row) for row in rows if row.arm in CANDIDATE]
    return Evidence(ArmLog.of(stable), ArmLog.of(canary), read_scores(session, rollout))


def read_scores(session: Session, rollout: RolloutRow) -> dict[str, Scores]:
    """Return the scores (0..1) of the rollout's answers by metric, in order of arrival.

    They are rows of `scores` whose item is a record of the rollout, and people's ratings. A
    metric with a value outside 0..1 is left out; an answer's first score by a metric counts.
    """
    arms: dict[str, dict[str, tuple[bool, float]]] = {}
    wrong: set[str] = set()
    for metric, item, arm, value in (*_marks(session, rollout), *_ratings(session, rollout)):
        if not math.isfinite(value) or not 0 <= value <= 1:
            wrong.add(metric)
        arms.setdefault(metric, {}).setdefault(item, (arm in CANDIDATE, value))
    return {m: Scores.of(of.values()) for m, of in arms.items() if m not in wrong}


def _marks(session: Session, rollout: RolloutRow) -> Iterator[tuple[str, str, str, float]]:
    query = (
        select(ScoreRow.metric, ScoreRow.item, RecordRow.arm, ScoreRow.value)
        .join(RecordRow, RecordRow.id == ScoreRow.item)
        .where(
            RecordRow.rollout == rollout.id,
            ScoreRow.evaluation.is_(None),
            ScoreRow.value.is_not(None),
        )
        .order_by(ScoreRow.id)
    )
    for metric, item, arm, value in session.execute(query):
        yield metric, item, arm, float(value or 0.0)


def _ratings(session: Session, rollout: RolloutRow) -> Iterator[tuple[str, str, str, float]]:
    query = (
        select(SignalRow.record, RecordRow.arm, SignalRow.value)
        .join(RecordRow, RecordRow.id == SignalRow.record)
        .where(RecordRow.rollout == rollout.id, SignalRow.kind == "rating")
        .order_by(SignalRow.at, SignalRow.key)
    )
    for item, arm, value in session.execute(query):
        yield RATING, item, arm, float(value.get("value", math.nan))


def count(store: Store, rollout: RolloutRow, now: datetime | None = None) -> Counts:
    """Return the canary's requests in this step and in all, and how long it has been quiet."""
    of_canary = (RecordRow.rollout == rollout.id, RecordRow.arm.in_(CANDIDATE), _REACHED)
    with store.session() as session:
        total, last = session.execute(
            select(func.count(), func.max(RecordRow.at)).where(*of_canary)
        ).one()
        here = session.scalar(
            select(func.count())
            .select_from(RecordRow)
            .where(*of_canary, RecordRow.step == rollout.step)
        )
    since = max(t for t in (rollout.step_started_at, last) if t is not None)
    quiet = ((now or utc_now()) - since).total_seconds()
    return Counts(int(here or 0), int(total), max(0.0, quiet))


def _sample(row: Any, step: int | None = None) -> Sample:
    checks = (row.checks or {}).items()
    flagged = any(
        not check.get("ok", True) for name, check in checks if not name.endswith(".request")
    )
    place = row.step if step is None else step
    return Sample(
        row.at.timestamp(),
        row.latency_ms,
        row.status >= 500,
        flagged,
        0 if place is None else place,
    )
