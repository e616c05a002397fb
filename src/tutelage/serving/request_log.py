"""One writer thread for everything production leaves behind: records and signals, group-committed.

A signal's future resolves after its commit (SQLite WAL, synchronous=FULL). Records share the
writer through a bounded queue; what doesn't fit is shed and counted, requests never wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Insert, Table, insert
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import SQLAlchemyError

from tutelage.serving.telemetry import Telemetry
from tutelage.store.base import Store
from tutelage.store.records import RecordRow, SignalRow

_GROUP = 512  # rows a commit
_LINGER_S = 0.05  # records wait this long for company; signals don't
_ATTEMPTS = 4
_log = logging.getLogger(__name__)

Row = dict[str, Any]
Done = Callable[[BaseException | None], None]


class LogFull(Exception):
    """The queue has no room for feedback: the caller should try again later."""


@dataclass(frozen=True, slots=True)
class _Item:
    table: str  # records or signals
    row: Row
    done: Done | None = None


class RequestLog:
    """The queue and its writer. `records_written` rises with every committed record."""

    def __init__(
        self, store: Store, telemetry: Telemetry | None = None, *, capacity: int = 20_000
    ) -> None:
        self.store = store
        self.telemetry = telemetry or Telemetry()
        self.capacity = capacity
        self.records_written = 0
        self._items: deque[_Item] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._idle = True
        self._waiting = 0  # signals in the queue, and callers of flush
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        dialect = store.engine.dialect.name
        self._statements = {name: _upsert(table, dialect) for name, table in _TABLES.items()}

    def start(self) -> None:
        """Start the writer."""
        self._thread.start()

    def record(self, row: Row) -> bool:
        """Queue a record; return False if it was shed."""
        return self._put(_Item("records", row), self.capacity)

    async def signals(self, rows: Sequence[Row]) -> None:
        """Return once all rows are durable. A repeated key is the same row.

        Raises LogFull when the queue has no room, or the store's error.
        """
        if not rows:
            return
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in rows]
        items = [
            _Item("signals", row, _resolver(loop, future))
            for row, future in zip(rows, futures, strict=True)
        ]
        # Feedback may use an eighth more than records: a flood of requests can't shut it out.
        if not self._put_all(items, self.capacity + self.capacity // 8 + 16):
            raise LogFull
        await asyncio.gather(*futures)

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything queued so far is committed; return False after `timeout` s."""
        with self._wake:
            self._waiting += 1
            self._wake.notify_all()
            done = self._wake.wait_for(lambda: not self._items and self._idle, timeout)
            self._waiting -= 1
            return done

    def close(self, timeout: float = 30.0) -> None:
        """Write what is queued, then stop the writer."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _put(self, item: _Item, capacity: int) -> bool:
        return self._put_all([item], capacity)

    def _put_all(self, items: Sequence[_Item], capacity: int) -> bool:
        with self._wake:
            if self._closing or len(self._items) + len(items) > capacity:
                shed = sum(item.table == "records" for item in items)
                if shed:
                    self.telemetry.lost.labels("shed").inc(shed)
                return False
            self._items.extend(items)
            self._waiting += sum(item.done is not None for item in items)
            if self._idle or self._pressing():
                self._wake.notify()
        return True

    def _run(self) -> None:
        while True:
            with self._wake:
                self._idle = True
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._items or self._closing)
                if not self._items:
                    return
                self._idle = False
                self._wake.wait_for(self._pressing, _LINGER_S)
                batch = [self._items.popleft() for _ in range(min(_GROUP, len(self._items)))]
                self._waiting -= sum(item.done is not None for item in batch)
            try:
                self._write(batch)
            except Exception as error:  # the writer must outlive anything a row can do to it
                _log.exception("the request log could not write %d rows", len(batch))
                self._fail(batch, error)
            self.telemetry.backlog.set(len(self._items))

    def _pressing(self) -> bool:
        return self._closing or self._waiting > 0 or len(self._items) >= _GROUP

    def _write(self, batch: list[_Item]) -> None:
        started = time.perf_counter()
        for attempt in range(_ATTEMPTS):
            try:
                self._commit(batch)
                break
            except Exception as error:  # SQLAlchemy's, or the driver's on a text it can't encode
                if attempt + 1 == _ATTEMPTS or not _passing(error):
                    self._one_by_one(batch, error)
                    return
                time.sleep(0.05 * 4**attempt)
        self._succeed(batch)
        self.telemetry.commit.observe(time.perf_counter() - started)

    def _commit(self, batch: list[_Item]) -> None:
        with self.store.begin() as session:
            for name, statement in self._statements.items():
                rows = [item.row for item in batch if item.table == name]
                if rows:
                    session.connection().execute(statement, rows)

    def _one_by_one(self, batch: list[_Item], error: Exception) -> None:
        """Save the good rows of a batch that one bad row spoils."""
        if len(batch) == 1:
            _log.error("a row could not be written: %s", error)
            self._fail(batch, error)
            return
        for item in batch:
            try:
                self._commit([item])
                self._succeed([item])
            except Exception as single:
                self._one_by_one([item], single)

    def _succeed(self, batch: list[_Item]) -> None:
        records = sum(item.table == "records" for item in batch)
        if records:
            self.records_written += records
            self.telemetry.written.inc(records)
        for item in batch:
            if item.done:
                item.done(None)

    def _fail(self, batch: list[_Item], error: BaseException) -> None:
        for item in batch:
            if item.done:
                item.done(error)
            else:
                self.telemetry.lost.labels("store").inc()


_TABLES: dict[str, Table] = {
    "records": RecordRow.__table__,  # type: ignore[dict-item]
    "signals": SignalRow.__table__,  # type: ignore[dict-item]
}


def _upsert(table: Table, dialect: str) -> Insert:
    """Return an insert for which a row that is there already is no error.

    A signal delivered again moves to its newest time: up, down, up ends as up.
    """
    if dialect not in ("sqlite", "postgresql"):
        return insert(table)
    make: Any = sqlite_insert if dialect == "sqlite" else postgres_insert
    statement = make(table)
    key = list(table.primary_key.columns)
    if table.name != "signals":
        return statement.on_conflict_do_nothing(index_elements=key)  # type: ignore[no-any-return]
    return statement.on_conflict_do_update(  # type: ignore[no-any-return]
        index_elements=key, set_={"at": statement.excluded.at}
    )


def _passing(error: Exception) -> bool:
    text = str(error).lower() if isinstance(error, SQLAlchemyError) else ""
    return "locked" in text or "busy" in text or "connection" in text


def _resolver(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> Done:
    def settle(error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def done(error: BaseException | None) -> None:
        try:
            loop.call_soon_threadsafe(settle, error)
        except RuntimeError:
            _log.debug("nobody waits for this row any more: the loop is closed")

    return done


_LONE = re.compile("[\ud800-\udfff]")


def safe_text(text: str) -> str:
    """Return `text` as a database can keep it: lone surrogates and NUL replaced."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return _LONE.sub("\ufffd", paired)
    return text


Redactor = Callable[[str], str]


def keep(text: str) -> str:
    """Return `text` as it is: the redactor of a project that asks for none."""
    return text
