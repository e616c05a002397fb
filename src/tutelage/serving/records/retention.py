"""When records are deleted for good, beside the running gateway.

Deleted records leave their sums in `usage_days` and the values of their scores, and take the
feedback on them along. Whose texts are written at all is decided in log_policy.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.release.rollout import ACTIVE
from tutelage.serving.access.usage import sums_of_records
from tutelage.serving.hooks import BackgroundHook
from tutelage.serving.state import GatewayState
from tutelage.store.base import Store, insert_into
from tutelage.store.live import strip_live
from tutelage.store.mining import strip_mined
from tutelage.store.records import HeldSignalRow, RecordRow, SignalRow
from tutelage.store.releases import RolloutRow
from tutelage.store.usage import BudgetRow, UsageRow

_EVERY_S = 3600.0
_AT_ONCE = 500  # records a transaction, so that the log's writer never waits for long
_BUDGETS_KEPT = timedelta(days=400)
_SUMS = ("requests", "failed", "prompt_tokens", "completion_tokens", "seconds")
_log = logging.getLogger(__name__)


def delete_old(store: Store, before: datetime) -> int:
    """Delete records of before `before` and the feedback on them; return how many there were.

    Records of a rollout under way stay until it has ended. Interrupted, it has done a part.
    """
    done = 0
    while True:
        count = _delete_some(store, before)
        done += count
        if count < _AT_ONCE:
            return done


def _delete_some(store: Store, before: datetime) -> int:
    active = select(RolloutRow.id).where(RolloutRow.state.in_(ACTIVE))
    in_use = RecordRow.rollout.is_not(None) & RecordRow.rollout.in_(active)
    with store.begin() as session:
        old = select(RecordRow.id).where(RecordRow.at < before, ~in_use).limit(_AT_ONCE)
        names = list(session.scalars(old))
        if not names:
            return 0
        return remove_records(store, session, names)


def delete_orphans(store: Store, before: datetime) -> int:
    """Delete feedback of before `before` whose record never came; return how much there was."""
    tables = ((SignalRow, SignalRow.key), (HeldSignalRow, HeldSignalRow.id))
    return sum(_orphans_of(store, table, name, before) for table, name in tables)


def _orphans_of(store: Store, table: Any, name: Any, before: datetime) -> int:
    there = select(RecordRow.id).where(RecordRow.id == table.record).exists()
    query = select(name).where(table.at < before, ~there).limit(_AT_ONCE)
    done = 0
    while True:
        with store.begin() as session:
            keys = list(session.scalars(query))
            session.execute(delete(table).where(name.in_(keys)))
        done += len(keys)
        if len(keys) < _AT_ONCE:
            return done


def remove_records(store: Store, session: Session, names: Sequence[str]) -> int:
    """Delete these records with the feedback on them; return how many there were.

    At most some hundred at once. What they used is added to the sums of their days.
    """
    mine = RecordRow.id.in_(names)
    sums = [row._asdict() for row in session.execute(sums_of_records(store).where(mine))]
    if not sums:
        return 0
    session.execute(_adding(store), sums)
    session.execute(delete(SignalRow).where(SignalRow.record.in_(names)))
    strip_live(session, names)
    strip_mined(session, names)
    session.execute(delete(RecordRow).where(mine))
    return int(sum(row["requests"] for row in sums))


def _adding(store: Store) -> Any:
    """Return the insert that adds to the row of the same day, release and caller."""
    table: Any = UsageRow.__table__
    statement = insert_into(store.engine, table)
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: table.c[name] + statement.excluded[name] for name in _SUMS},
    )


def forget_budgets(store: Store) -> None:
    """Delete what budgets spent in periods that nobody looks at any more."""
    before = utc_now() - _BUDGETS_KEPT
    with store.begin() as session:
        session.execute(
            delete(BudgetRow).where(BudgetRow.updated_at < before, BudgetRow.period != "all")
        )


class Retention(BackgroundHook):
    """Deletes what is too old, once an hour, beside the requests."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._once)
            except SQLAlchemyError as error:
                _log.warning("old records could not be deleted: %s", error)
            await asyncio.sleep(_EVERY_S)

    def _once(self) -> None:
        store, days = self._state.store, self._state.project.deploy.log_days
        forget_budgets(store)
        if days is not None:
            before = utc_now() - timedelta(days=days)
            count = delete_old(store, before)
            delete_orphans(store, before)
            if count:
                _log.info("%d records older than %d days were deleted", count, days)
