"""Feedback by keys that are limited to some deployments: kept where they may, and nowhere else.

Feedback may come before its record, whose deployment nobody knows then. It waits in a table of
its own, which nothing else reads, until the record is there: then it becomes a signal, or is left
out if the key may not touch that deployment. Its sender hears the same in each case.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, delete, select

from tutelage.core.artifact import content_hash
from tutelage.serving.records.spill import Row
from tutelage.store.base import Store, insert_into
from tutelage.store.records import HeldSignalRow, RecordRow

_AT_ONCE = 512  # rows that are looked at in one transaction
_COLUMNS = ("key", "record", "kind", "explicit", "value", "author", "at")
_log = logging.getLogger(__name__)


class HeldSignals:
    """Sorts the rows of limited deliveries. `left_out` hears how many are nobody's business."""

    def __init__(self, store: Store, left_out: Callable[[int], object]) -> None:
        self._store, self._left_out = store, left_out
        table: Any = HeldSignalRow.__table__
        self._hold: Insert = insert_into(store.engine, table).on_conflict_do_nothing(
            index_elements=["id"]
        )

    def sort(
        self, connection: Connection, limited: Sequence[tuple[Row, frozenset[str]]]
    ) -> list[Row]:
        """Return the rows on records that their key may touch; hold those without a record."""
        where = _deployments(connection, {row["record"] for row, _ in limited})
        waiting = [(row, only) for row, only in limited if row["record"] not in where]
        if waiting:
            connection.execute(self._hold, [_held(row, only) for row, only in waiting])
        known = [(row, only) for row, only in limited if row["record"] in where]
        allowed = [row for row, only in known if where[row["record"]] in only]
        self._tell(len(known) - len(allowed))
        return allowed

    def release(self, signals: Insert) -> None:
        """Keep by `signals` what waited for a record that is there now, or leave it out."""
        names = [column for column in HeldSignalRow.__table__.c if column.name in _COLUMNS]
        query = select(HeldSignalRow.id, HeldSignalRow.deployments, RecordRow.deployment, *names)
        joined = query.join(RecordRow, RecordRow.id == HeldSignalRow.record).limit(_AT_ONCE)
        with self._store.session() as session:
            found = list(session.execute(joined))
        if not found:
            return
        rows = [
            {name: getattr(row, name) for name in _COLUMNS}
            for row in found
            if row.deployment in row.deployments
        ]
        with self._store.begin() as session:
            if rows:
                session.connection().execute(signals, rows)
            done = [row.id for row in found]
            session.execute(delete(HeldSignalRow).where(HeldSignalRow.id.in_(done)))
        self._tell(len(found) - len(rows))

    def _tell(self, number: int) -> None:
        if number:
            self._left_out(number)
            _log.warning(
                "%d signals were left out: their keys may not touch the deployments that they "
                "are about", number,
            )  # fmt: skip


def _deployments(connection: Connection, records: Iterable[str]) -> dict[str, str]:
    query = select(RecordRow.id, RecordRow.deployment).where(RecordRow.id.in_(list(records)))
    return {row.id: row.deployment for row in connection.execute(query)}


def _held(row: Row, only: frozenset[str]) -> Row:
    names = sorted(only)
    return {**row, "id": content_hash([row["key"], names]), "deployments": names}
