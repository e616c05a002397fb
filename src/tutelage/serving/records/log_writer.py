"""How rows of the request log get into the store: one transaction a group, trouble told apart.

A row that the store can't take is lost and counted, alone. A store that can't take anything now
(locked, full, gone) loses nothing: the group is handed back and tried again. It has no thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Insert, Table, case, delete, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tutelage.core.artifact import utc_now
from tutelage.serving.records.held_signals import HeldSignals
from tutelage.serving.records.spill import Place, Row
from tutelage.store.base import Store, insert_into
from tutelage.store.records import DeliveryRow, RecordRow, SignalRow

_ROW_FAULTS = (IntegrityError, DataError, InterfaceError, ProgrammingError)
_REMEMBERED = timedelta(days=7)  # how long an idempotency key is known
_log = logging.getLogger(__name__)

Done = Callable[[BaseException | None], None]


class KeyReused(Exception):
    """An idempotency key came again with other content."""


@dataclass(slots=True, eq=False)
class Record:
    """A record on its way. `row` is None while it waits on disk alone, at `place`."""

    row: Row | None
    place: Place | None = None
    size: int = 0  # bytes of its line


@dataclass(slots=True, eq=False)
class Delivery:
    """The signals of one request, kept together or not at all. `done` hears how it ended."""

    rows: Sequence[Row]
    done: Done
    key: str | None = None  # hash of sender and idempotency key
    digest: str = ""
    abandoned: bool = False  # its client was told to come again
    only: frozenset[str] | None = None  # deployments that its key may touch; None: all

    @property
    def weight(self) -> tuple[int, int]:
        """Rows, and about the characters in them."""
        return len(self.rows), sum(len(str(row.get("value"))) for row in self.rows)


@dataclass(slots=True)
class Batch:
    """What goes into one transaction."""

    records: list[Record] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.records or self.deliveries)


@dataclass(slots=True)
class Outcome:
    """What became of a batch: `held` is to be tried again because of `trouble`."""

    kept: list[Record] = field(default_factory=list)
    lost: list[Record] = field(default_factory=list)
    held: Batch = field(default_factory=Batch)
    trouble: Exception | None = None


class Writer:
    """Writes batches to one store."""

    def __init__(
        self,
        store: Store,
        read: Callable[[Record], Row],
        left_out: Callable[[int], object] = lambda number: None,
    ) -> None:
        self.store = store
        self._read = read  # gives the row of a record that waits on disk
        self._held = HeldSignals(store, left_out)
        self._records = _upsert(store, RecordRow.__table__)
        self._signals = _upsert(store, SignalRow.__table__)
        self._deliveries = _upsert(store, DeliveryRow.__table__)

    def write(self, batch: Batch) -> Outcome:
        """Write a batch, alone those rows that spoil it for the others."""
        try:
            self._commit(batch)
            return Outcome(kept=batch.records)
        except Exception as error:
            if not is_row_fault(error) and is_passing(error):
                return Outcome(held=batch, trouble=error)
            return self._one_by_one(batch)

    def forget_old_keys(self) -> None:
        """Delete idempotency keys that nobody will send again."""
        with self.store.begin() as session:
            before = utc_now() - _REMEMBERED
            session.execute(delete(DeliveryRow).where(DeliveryRow.at < before))

    def release_held(self) -> None:
        """Keep the feedback whose record has come since, if its key may touch it."""
        self._held.release(self._signals)

    def _commit(self, batch: Batch) -> None:
        answers: list[tuple[Delivery, BaseException | None]] = []
        with self.store.begin() as session:
            connection = session.connection()
            if batch.records:
                found = [record.row or self._read(record) for record in batch.records]
                for _, alike in groupby(found, key=tuple):  # one statement names the same columns
                    connection.execute(self._records, list(alike))
            fresh = self._fresh(connection, batch.deliveries, answers)
            rows = [row for delivery in fresh if delivery.only is None for row in delivery.rows]
            limited = [(row, d.only) for d in fresh if d.only is not None for row in d.rows]
            if limited:
                rows += self._held.sort(connection, limited)
            if rows:
                connection.execute(self._signals, rows)
        for delivery, error in answers:
            delivery.done(error)

    def _fresh(
        self,
        connection: Connection,
        deliveries: Sequence[Delivery],
        answers: list[tuple[Delivery, BaseException | None]],
    ) -> list[Delivery]:
        """Return the deliveries that are new and remember their keys; add what to tell each."""
        keys = [delivery.key for delivery in deliveries if delivery.key]
        known: dict[str, str] = {}
        if keys:
            query = select(DeliveryRow.key, DeliveryRow.digest).where(DeliveryRow.key.in_(keys))
            known = {row.key: row.digest for row in connection.execute(query)}
        fresh, seen = [], []
        for delivery in deliveries:
            before = known.get(delivery.key) if delivery.key else None
            other = before is not None and before != delivery.digest
            answers.append((delivery, KeyReused() if other else None))
            if before is not None:
                continue
            fresh.append(delivery)
            if delivery.key:
                known[delivery.key] = delivery.digest
                seen.append({"key": delivery.key, "digest": delivery.digest, "at": utc_now()})
        if seen:
            connection.execute(self._deliveries, seen)
        return fresh

    def _one_by_one(self, batch: Batch) -> Outcome:
        """Save the good rows of a batch that one bad row spoils.

        If the store itself is the trouble, the first single row fails too and all is held.
        """
        outcome = Outcome()
        singles = [Batch(deliveries=[d]) for d in batch.deliveries]
        singles += [Batch(records=[r]) for r in batch.records]
        late: list[tuple[Batch, Exception]] = []
        moved = False
        for position, single in enumerate(singles):
            try:
                self._commit(single)
            except Exception as error:
                if is_row_fault(error):
                    _give_up(single, error, outcome)
                    continue
                late.append((single, error))
                if not moved:  # probably the store: spare it the others
                    late[:0] = [(rest, error) for rest in singles[position + 1 :]]
                    break
            else:
                moved = True
                outcome.kept += single.records
        for single, trouble in late:
            if moved:
                _give_up(single, trouble, outcome)
            else:
                outcome.held.records += single.records
                outcome.held.deliveries += single.deliveries
                outcome.trouble = trouble
        return outcome


def is_row_fault(error: Exception) -> bool:
    """Return whether `error` is about what was written rather than about the store."""
    if isinstance(error, (PoolTimeout, OSError, MemoryError)):
        return False
    return isinstance(error, _ROW_FAULTS) or not isinstance(error, DBAPIError)


def is_passing(error: Exception) -> bool:
    """Return whether waiting a little may help: somebody holds the store, or it starts again."""
    text = str(error).lower()
    return any(word in text for word in ("locked", "busy", "connection", "timeout", "starting up"))


def _give_up(single: Batch, error: Exception, outcome: Outcome) -> None:
    _log.error("a row could not be written: %s", error)
    outcome.lost += single.records
    for delivery in single.deliveries:
        delivery.done(error)


def _upsert(store: Store, table: Any) -> Insert:
    """Return an insert for which a row that is there already is no error.

    A signal delivered again has the newest of its times, in whatever order they come: up, down,
    up ends as up.
    """
    found: Table = table
    statement = insert_into(store.engine, found)
    key = list(found.primary_key.columns)
    if found.name != "signals":
        return statement.on_conflict_do_nothing(index_elements=key)  # type: ignore[no-any-return]
    before, now = found.c.at, statement.excluded.at
    return statement.on_conflict_do_update(  # type: ignore[no-any-return]
        index_elements=key, set_={"at": case((now > before, now), else_=before)}
    )
