"""Read what both arms of a rollout did from the request log, and its scores. It does not judge."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import case, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.release.arms import ArmLog, Sample, ScoreLog, Scores
from tutelage.release.rollout import Counts
from tutelage.release.sequential import NOBODY
from tutelage.store.base import Store
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.releases import RolloutRow
from tutelage.store.scores import ScoreRow

# Answered by the gateway itself: no release had a part in it.
TURNED_AWAY = (400, 401, 402, 403, 404, 413, 429)
HISTORY = 500  # requests of the stable release before the rollout, to place thresholds
RATING = "rating"  # people's ratings, as a metric beside the scores

# Whoever keeps one arm: the user, but nobody where copies are drawn by request.
_DEALT = case((RecordRow.arm == "shadow", None), else_=RecordRow.user)
_COLUMNS = (
    RecordRow.at,
    RecordRow.latency_ms,
    RecordRow.status,
    RecordRow.checks,
    RecordRow.step,
    RecordRow.arm,
    RecordRow.release,
    RecordRow.user,
    _DEALT.label("dealt"),
)
_REACHED = RecordRow.status.not_in(TURNED_AWAY)
_REFUSED = 400  # a guard's, or the engine's: it can't do for this release what was asked
_OVERLAP_S = 60.0  # how late a record may be written, after others that ended with it
_AFRESH_S = 600.0  # then all is read again: records of a gateway that crashed come later still

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
    return Collector(store, rollout).read(facts)


class Collector:
    """Reads a rollout's evidence again and again: of the log only what is new since the last time.

    What it gives is what a new one would give; nothing is lost with it.
    """

    def __init__(self, store: Store, rollout: RolloutRow) -> None:
        self.store, self._rollout = store, rollout
        self._begin()

    def read(self, facts: Facts | None = None) -> Evidence:
        """Return all that is known now; see `read_evidence`."""
        facts = facts or Facts()
        try:
            with self.store.session() as session:
                self._follow(session)
                scores = read_scores(session, self._rollout)
        except DBAPIError as error:
            self._begin()  # what was read of it is in doubt
            problem = f"the request log can't be read ({str(error.orig).splitlines()[0]})"
            broken = ArmLog.of((), problem=problem)
            return Evidence(broken, broken)
        return Evidence(
            replace(self._stable.log(), memory=dict(facts.memory_before)),
            replace(self._canary.log(), memory=dict(facts.memory), fault=facts.fault),
            scores,
        )

    def _begin(self) -> None:
        self._stable, self._canary = _Rows(), _Rows()
        self._users: dict[str, int] = {}
        self._recent: dict[str, float] = {}  # ids in the overlap, and when they ended
        self._upto = 0.0
        self._has_history = False
        self._began = time.monotonic()

    def _follow(self, session: Session) -> None:
        ahead = self._upto > time.time() + _OVERLAP_S  # the clock was set back meanwhile
        if ahead or time.monotonic() - self._began > _AFRESH_S:
            self._begin()
        if not self._has_history:
            for row in session.execute(self._before()):
                self._stable.add(_sample(row, _number(row.dealt, self._users), -1))
            self._has_history = True
        since = datetime.fromtimestamp(max(0.0, self._upto - _OVERLAP_S), UTC)
        query = select(RecordRow.id, *_COLUMNS).where(
            RecordRow.rollout == self._rollout.id,
            RecordRow.at > since,
            _REACHED | (RecordRow.status == _REFUSED),
        )
        for row in session.execute(query.order_by(RecordRow.at)):
            if row.id not in self._recent and not self._is_copied(row):
                ours = row.release == self._rollout.candidate
                rows = self._canary if ours else self._stable
                if row.status != _REFUSED:
                    rows.add(_sample(row, _number(row.dealt, self._users)))
                elif not _is_blocked(row):
                    rows.refuse(row.user or row.id, row.at.timestamp())
                self._recent[row.id] = row.at.timestamp()
        self._upto = max((*self._recent.values(), self._upto))
        edge = self._upto - 2 * _OVERLAP_S
        self._recent = {name: at for name, at in self._recent.items() if at > edge}

    def _is_copied(self, row: Any) -> bool:
        """Return whether it is a client's request of a shadow step: there, copies are compared."""
        shadow = int(self._rollout.plan.get("shadow") or 0)
        return row.arm == "stable" and row.step is not None and row.step < shadow

    def _before(self) -> Any:
        """Return the query of the stable release's newest requests from before the rollout."""
        rollout = self._rollout
        return (
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
        )


class _Rows:
    """One arm's requests as they were read."""

    def __init__(self) -> None:
        self._at, self._latency = array("d"), array("d")
        self._failed, self._flagged = array("b"), array("b")
        self._step, self._user = array("q"), array("q")
        self._refused: dict[str, float] = {}  # user -> when first; one broken client moves nothing

    def add(self, sample: Sample) -> None:
        """Append a request."""
        self._at.append(sample.at)
        self._latency.append(sample.latency_ms)
        self._failed.append(sample.failed)
        self._flagged.append(sample.flagged)
        self._step.append(sample.step)
        self._user.append(sample.user)

    def refuse(self, user: str, at: float) -> None:
        """Note that the engine refused a request."""
        self._refused.setdefault(user, at)

    def log(self) -> ArmLog:
        """Return them in order of time."""
        at = np.array(self._at)
        order = np.argsort(at, kind="stable")
        return ArmLog(
            at[order],
            np.array(self._latency)[order],
            np.array(self._failed, dtype=np.bool_)[order],
            np.array(self._flagged, dtype=np.bool_)[order],
            np.array(self._step, dtype=np.int64)[order],
            refused=np.array(sorted(self._refused.values()), dtype=np.float64),
            user=np.array(self._user, dtype=np.int64)[order],
        )


def counts(evidence: Evidence, rollout: RolloutRow, now: datetime | None = None) -> Counts:
    """Return what `count` does, from evidence that was read already."""
    canary = evidence.canary
    last = datetime.fromtimestamp(canary.at[-1], UTC) if len(canary) else None
    here = int((canary.step == rollout.step).sum())
    return Counts(here, len(canary), _quiet_s(rollout, last, now))


def read_scores(session: Session, rollout: RolloutRow) -> dict[str, Scores]:
    """Return the scores (0..1) of the rollout's answers by metric, in order of arrival.

    They are rows of `scores` whose item is a record of the rollout, and people's ratings. A
    metric with a value outside 0..1 is left out; an answer's first score by a metric counts.
    """
    found: dict[str, dict[str, tuple[bool, float, int]]] = {}
    wrong: set[str] = set()
    users: dict[str, int] = {}
    for metric, item, release, user, value in (
        *_marks(session, rollout),
        *_ratings(session, rollout),
    ):
        if not math.isfinite(value) or not 0 <= value <= 1:
            wrong.add(metric)
        scored = (release == rollout.candidate, value, _number(user, users))
        found.setdefault(metric, {}).setdefault(item, scored)
    return {m: Scores.of(of.values()) for m, of in found.items() if m not in wrong}


# Of a scored answer: the metric, the record, its release and user, and the score.
_Scored = tuple[str, str, str, str | None, float]


def _marks(session: Session, rollout: RolloutRow) -> Iterator[_Scored]:
    query = (
        select(ScoreRow.metric, ScoreRow.item, RecordRow.release, _DEALT, ScoreRow.value)
        .join(RecordRow, RecordRow.id == ScoreRow.item)
        .where(
            RecordRow.rollout == rollout.id,
            ScoreRow.evaluation.is_(None),
            ScoreRow.value.is_not(None),
        )
        .order_by(ScoreRow.id)
    )
    for metric, item, release, user, value in session.execute(query):
        yield metric, item, release, user, float(value or 0.0)


def _ratings(session: Session, rollout: RolloutRow) -> Iterator[_Scored]:
    query = (
        select(SignalRow.record, RecordRow.release, _DEALT, SignalRow.value)
        .join(RecordRow, RecordRow.id == SignalRow.record)
        .where(RecordRow.rollout == rollout.id, SignalRow.kind == "rating")
        .order_by(SignalRow.at, SignalRow.key)
    )
    for item, release, user, value in session.execute(query):
        yield RATING, item, release, user, float(value.get("value", math.nan))


def count(store: Store, rollout: RolloutRow, now: datetime | None = None) -> Counts:
    """Return the canary's requests in this step and in all, and how long it has been quiet."""
    of_canary = (RecordRow.rollout == rollout.id, RecordRow.release == rollout.candidate, _REACHED)
    with store.session() as session:
        total, last = session.execute(
            select(func.count(), func.max(RecordRow.at)).where(*of_canary)
        ).one()
        here = session.scalar(
            select(func.count())
            .select_from(RecordRow)
            .where(*of_canary, RecordRow.step == rollout.step)
        )
    return Counts(int(here or 0), int(total), _quiet_s(rollout, last, now))


def _quiet_s(rollout: RolloutRow, last: datetime | None, now: datetime | None) -> float:
    since = max(t for t in (rollout.step_started_at, last) if t is not None)
    return max(0.0, ((now or utc_now()) - since).total_seconds())


def _number(user: str | None, known: dict[str, int]) -> int:
    """Return the user's number among those known, a new one for a new user."""
    return NOBODY if user is None else known.setdefault(user, len(known))


def _sample(row: Any, user: int, step: int | None = None) -> Sample:
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
        user,
    )


def _is_blocked(row: Any) -> bool:
    """Return whether a guard refused the request, before the engine saw it."""
    checks = (row.checks or {}).items()
    return any(name.endswith(".request") and not check.get("ok", True) for name, check in checks)
