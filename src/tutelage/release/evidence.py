"""Read what both arms of a rollout did from the request log. It does not judge."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from tutelage.core.artifact import utc_now
from tutelage.release.rollback import ArmLog, Sample
from tutelage.release.rollout import Counts
from tutelage.store.base import Store
from tutelage.store.records import RecordRow
from tutelage.store.releases import RolloutRow

# Answered by the gateway itself: no release had a part in it.
TURNED_AWAY = (400, 401, 403, 404, 413, 429)
HISTORY = 500  # requests of the stable release before the rollout, to place thresholds

_COLUMNS = (
    RecordRow.at,
    RecordRow.latency_ms,
    RecordRow.status,
    RecordRow.checks,
    RecordRow.step,
)
_REACHED = RecordRow.status.not_in(TURNED_AWAY)


def read_arms(
    store: Store,
    rollout: RolloutRow,
    *,
    memory: Iterable[float] = (),
    fault: str | None = None,
) -> tuple[ArmLog, ArmLog]:
    """Return (baseline, canary) logs of everything since the rollout began.

    `memory` and `fault` are the engine's and go to the canary's log. A store that can't be read
    gives logs whose `problem` says so: the verdict is then collector_error.
    """
    try:
        with store.session() as session:
            arms = {
                arm: session.execute(
                    select(*_COLUMNS)
                    .where(RecordRow.rollout == rollout.id, RecordRow.arm == arm, _REACHED)
                    .order_by(RecordRow.at)
                ).all()
                for arm in ("stable", "canary")
            }
            old = session.execute(
                select(*_COLUMNS)
                .where(
                    RecordRow.deployment == rollout.deployment,
                    RecordRow.release == rollout.baseline,
                    RecordRow.rollout.is_distinct_from(rollout.id),
                    RecordRow.at < rollout.created_at,
                    _REACHED,
                )
                .order_by(RecordRow.at.desc())
                .limit(HISTORY)
            ).all()
    except DBAPIError as error:
        problem = f"the request log can't be read ({str(error.orig).splitlines()[0]})"
        broken = ArmLog.of((), problem=problem)
        return broken, broken
    stable = [_sample(row, -1) for row in old] + [_sample(row) for row in arms["stable"]]
    canary = [_sample(row) for row in arms["canary"]]
    return ArmLog.of(stable), ArmLog.of(canary, memory=memory, fault=fault)


def count(store: Store, rollout: RolloutRow, now: datetime | None = None) -> Counts:
    """Return the canary's requests in this step and in all, and how long it has been quiet."""
    with store.session() as session:
        of_canary = (RecordRow.rollout == rollout.id, RecordRow.arm == "canary", _REACHED)
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
