"""What comes of a forgotten user after they were forgotten: late feedback, and late records.

A gateway holds records in memory and in its write-ahead file for a moment, and clients send
feedback on answers of long ago. Both are recognised by their keyed hashes and deleted. What the
same user asks later is new, and is kept.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError

from tutelage.feedback.privacy.tables import parts
from tutelage.feedback.privacy.traces import keyed
from tutelage.serving.hooks import BackgroundHook
from tutelage.serving.records.retention import remove_records
from tutelage.serving.state import GatewayState
from tutelage.store.base import Store
from tutelage.store.privacy import ErasureRow, ForgottenRow
from tutelage.store.records import HeldSignalRow, RecordRow, SignalRow

_EVERY_S = 300.0
_EARLIER = timedelta(days=7)  # how long before an erasure a late record may have been asked
_log = logging.getLogger(__name__)


def sweep_late(store: Store, key: bytes) -> dict[str, int]:
    """Delete what came late of forgotten users; return {records, signals}."""
    with store.session() as session:
        if session.scalars(select(ErasureRow.id).limit(1)).first() is None:
            return {"records": 0, "signals": 0}
    signals = sum(_late_signals(store, key, table) for table in (SignalRow, HeldSignalRow))
    return {"records": _late_records(store, key), "signals": signals}


def _late_records(store: Store, key: bytes) -> int:
    done = 0
    with store.session() as session:
        erasures = list(session.scalars(select(ErasureRow)))
    for erasure in erasures:
        ours = {erasure.user, erasure.hashed}
        span = (RecordRow.at >= erasure.at - _EARLIER, RecordRow.at <= erasure.at)
        with store.begin() as session:
            rows = session.execute(
                select(RecordRow.id, RecordRow.user, RecordRow.group_key).where(*span)
            )
            late = [
                name
                for name, user, group in rows
                if not ours.isdisjoint(keyed(key, "user", one) for one in (user, group) if one)
            ]
            for part in parts(late):
                session.add_all(
                    ForgottenRow(record=keyed(key, "record", name), erasure=erasure.id)
                    for name in part
                )
                done += remove_records(store, session, part)
    return done


def _late_signals(store: Store, key: bytes, table: type[SignalRow] | type[HeldSignalRow]) -> int:
    there = select(RecordRow.id).where(RecordRow.id == table.record).exists()
    with store.begin() as session:
        orphans = list(session.scalars(select(table.record).where(~there).distinct()))
        digests = {keyed(key, "record", name): name for name in orphans}
        known: list[str] = []
        for part in parts(digests):
            query = select(ForgottenRow.record).where(ForgottenRow.record.in_(part))
            known += [digests[digest] for digest in session.scalars(query)]
        done = 0
        for part in parts(known):
            gone = session.execute(delete(table).where(table.record.in_(part)))
            done += int(gone.rowcount)  # type: ignore[attr-defined]
    return done


class Forgetting(BackgroundHook):
    """Looks every five minutes, beside the requests."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def _run(self) -> None:
        while True:
            try:
                found = await asyncio.to_thread(
                    sweep_late, self._state.store, self._state.split_key
                )
            except SQLAlchemyError as error:
                _log.warning("what came late of forgotten users could not be deleted: %s", error)
            else:
                if any(found.values()):
                    _log.info("late rows of forgotten users were deleted: %s", found)
            await asyncio.sleep(_EVERY_S)
