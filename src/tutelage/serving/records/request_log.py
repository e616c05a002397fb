"""The queue of everything production leaves behind: records and feedback, group-committed.

Feedback is acknowledged after its commit (SQLite WAL, synchronous=FULL). Records are written
ahead (spill.py) and follow through the same thread; requests never wait for the store. Memory is
bounded: under a store that is slow, locked or full, records wait on disk, then the newest are
shed, whichever release answered, and counted. Feedback is never shed: its client gets an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from tutelage.serving.monitoring.log_meters import LogMeters
from tutelage.serving.monitoring.telemetry import Telemetry
from tutelage.serving.records.log_writer import (
    Batch,
    Delivery,
    Done,
    KeyReused,
    Outcome,
    Record,
    Writer,
    is_passing,
)
from tutelage.serving.records.spill import Row, Spill, decode_row, encode_row
from tutelage.store.base import Store

_GROUP = 512  # rows a commit
_LINGER_S = 0.05  # records wait this long for company; feedback doesn't
_MEMORY = 8 * 2**20  # bytes of lines whose rows are kept in memory; more wait on disk alone
_FEEDBACK_ROWS, _FEEDBACK_BYTES = 2_048, 16 * 2**20  # that may wait for the store
_PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0)  # between tries while the store takes nothing
_LAST_TRIES = 3  # when the log is closed
_IDLE_S = 1.0  # a wait without work
_LOOK_AROUND_S = 60.0  # for files of processes that died meanwhile
_RELEASE_S = 5.0  # between two looks for feedback whose record has come
_FORGET_KEYS_S = 86_400.0  # between two looks for idempotency keys that are too old
_log = logging.getLogger(__name__)

__all__ = ["KeyReused", "LogFull", "LogSlow", "RequestLog", "keep", "safe_text"]


class LogFull(Exception):
    """The queue has no room for feedback: the caller should try again later."""


class LogSlow(Exception):
    """The store did not answer in time: feedback may or may not be kept, and can be sent again."""


class RequestLog:
    """The queue and its thread. `records_written` rises with every committed record.

    `ahead` is the folder of the write-ahead files; without it, what is queued is in memory alone.
    """

    def __init__(
        self,
        store: Store,
        telemetry: Telemetry | None = None,
        *,
        ahead: Path | None = None,
        capacity: int = 100_000,
        patience_s: float = 10.0,
    ) -> None:
        self.store = store
        self.telemetry = telemetry or Telemetry()
        self.capacity, self.patience_s = capacity, patience_s
        self.records_written = 0
        self.spill = Spill(ahead) if ahead else None
        self._meters = LogMeters(self.telemetry)
        self._writer = Writer(store, self._from_disk, self._meters.left_out.inc)
        self._records: deque[Record] = deque()
        self._deliveries: deque[Delivery] = deque()
        self._held = Batch()  # handed back by the writer
        self._memory = 0  # bytes of lines whose rows are in memory
        self._feedback = [0, 0]  # rows and characters that wait
        self._wake = threading.Condition()
        self._closing = False
        self._idle = True
        self._flushing = 0  # callers of flush
        self._orphans: Iterator[list[Row]] | None = None  # of dead processes
        self._looked_at = self._forget_at = self._release_at = 0.0  # monotonic seconds
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)

    def start(self) -> None:
        """Start the writer; it first takes over what a killed process left."""
        self._thread.start()

    def record(self, row: Row) -> bool:
        """Queue a record, written ahead when this returns; return False if it was shed."""
        line = encode_row(row)
        place = None
        if not self._closing and len(self._records) < self.capacity:
            place = self.spill.append(line) if self.spill else None
            if self.spill and place is None:
                self._meters.unguarded.inc()
        item = Record(row, place, len(line))
        with self._wake:
            crowded = self._memory + item.size > _MEMORY
            full = len(self._records) >= self.capacity or (crowded and place is None)
            if self._closing or full:
                self.telemetry.lost.labels("shed").inc()
                return False
            if crowded:
                item.row = None
            else:
                self._memory += item.size
            self._records.append(item)
            if self._idle or self._pressing():
                self._wake.notify_all()
        return True

    async def signals(
        self,
        rows: Sequence[Row],
        key: str | None = None,
        digest: str = "",
        only: frozenset[str] | None = None,
    ) -> None:
        """Return once all rows are durable; they are kept together or not at all.

        A delivery with a `key` that was seen before changes nothing; KeyReused if its `digest`
        is another. `only` are the deployments that the sender may touch. Raises LogFull when there
        is no room, LogSlow after `patience_s`, or the store's error.
        """
        if not rows:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        delivery = Delivery(rows, _resolver(loop, future), key, digest, only=only)
        if not self._put(delivery):
            raise LogFull
        try:
            await asyncio.wait_for(future, self.patience_s)
        except TimeoutError:
            raise LogSlow from None
        finally:
            delivery.abandoned = True

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything queued so far is committed; return False after `timeout` s."""
        with self._wake:
            self._flushing += 1
            self._wake.notify_all()
            done = self._wake.wait_for(lambda: self._idle and not self._ready(), timeout)
            self._flushing -= 1
            return done

    def close(self, timeout: float = 30.0) -> None:
        """Write what is queued, then stop the writer. What the store refuses stays on disk."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if self.spill and not self._thread.is_alive():
            self.spill.close()

    def _put(self, delivery: Delivery) -> bool:
        rows, size = delivery.weight
        with self._wake:
            if (
                self._closing
                or self._feedback[0] + rows > _FEEDBACK_ROWS
                or self._feedback[1] + size > _FEEDBACK_BYTES
            ):
                return False
            self._feedback[0] += rows
            self._feedback[1] += size
            self._deliveries.append(delivery)
            self._wake.notify_all()
        return True

    def _run(self) -> None:
        tries = 0
        self._look_around()
        while True:
            batch = self._take()
            if batch:
                trouble = self._write(batch)
                tries = tries + 1 if trouble else 0
                if self._closing and tries >= _LAST_TRIES:
                    break
                if trouble:
                    self._pause(tries)
            elif self._closing:
                break
            else:
                self._tidy()
            self._release_held()
        self._abandon()

    def _take(self) -> Batch:
        """Return what to write next: what was held, feedback, records, what the dead left.

        It waits a second at most; an empty batch means that there is nothing to do.
        """
        with self._wake:
            if not self._ready():
                self._idle = True
                self._wake.notify_all()
                self._wake.wait_for(self._ready, _IDLE_S)
            self._idle = False
            if self._records and not self._held and self._orphans is None:
                self._wake.wait_for(self._pressing, _LINGER_S)
            batch, self._held = self._held, Batch()
            batch.deliveries += self._deliveries
            self._deliveries.clear()
            for gone in [d for d in batch.deliveries if d.abandoned]:
                batch.deliveries.remove(gone)
                self._forget_weight(gone)
            while self._records and len(batch.records) < _GROUP:
                batch.records.append(self._records.popleft())
        if not self._closing and len(batch.records) < _GROUP:
            batch.records += self._from_the_dead()
        return batch

    def _ready(self) -> bool:
        held = bool(self._held) or self._orphans is not None
        return held or self._closing or bool(self._records or self._deliveries)

    def _pressing(self) -> bool:
        waited_for = self._closing or self._flushing > 0 or bool(self._deliveries)
        return waited_for or len(self._records) >= _GROUP

    def _write(self, batch: Batch) -> Exception | None:
        """Write a batch and settle what became of it; return what keeps the store from writing."""
        started = time.perf_counter()
        try:
            outcome = self._writer.write(batch)
        except Exception as error:  # the thread must outlive anything a row can do to it
            _log.exception("the request log could not write %d rows", len(batch.records))
            for delivery in batch.deliveries:
                delivery.done(error)
            outcome = Outcome(lost=batch.records)
        held, trouble = outcome.held, outcome.trouble
        self._meters.trouble.set(0 if trouble is None else 1)
        if trouble is None:
            self.telemetry.commit.observe(time.perf_counter() - started)
        elif not is_passing(trouble):
            for delivery in held.deliveries:
                delivery.done(trouble)
            held.deliveries = []
        self._settle(batch, outcome)
        return trouble

    def _settle(self, batch: Batch, outcome: Outcome) -> None:
        kept, gone = len(outcome.kept), [*outcome.kept, *outcome.lost]
        if kept:
            self.records_written += kept
            self.telemetry.written.inc(kept)
        if outcome.lost:
            self.telemetry.lost.labels("store").inc(len(outcome.lost))
        if self.spill:
            self.spill.done([record.place for record in gone if record.place])
        with self._wake:
            self._memory -= sum(record.size for record in gone if record.row)
            waiting = set(map(id, outcome.held.deliveries))
            for delivery in batch.deliveries:
                if id(delivery) not in waiting:
                    self._forget_weight(delivery)
            self._held = outcome.held
        self._measure()
        if outcome.trouble is not None:
            queued = len(self._records) + len(outcome.held.records)
            _log.warning("%d records wait, the store takes none: %s", queued, outcome.trouble)

    def _pause(self, tries: int) -> None:
        with self._wake:
            seconds = _PAUSES_S[min(tries, len(_PAUSES_S)) - 1]
            self._wake.wait_for(lambda: self._closing, seconds)

    def _tidy(self) -> None:
        """Use a quiet second: empty the files, take over from the dead, forget old keys."""
        if self.spill:
            self.spill.done((), idle=True)
        now = time.monotonic()
        if now - self._looked_at > _LOOK_AROUND_S:
            self._look_around()
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_KEYS_S
            with contextlib.suppress(SQLAlchemyError):
                self._writer.forget_old_keys()
        self._measure()

    def _release_held(self) -> None:
        now = time.monotonic()
        if now >= self._release_at:
            self._release_at = now + _RELEASE_S
            with contextlib.suppress(SQLAlchemyError):
                self._writer.release_held()

    def _look_around(self) -> None:
        self._looked_at = time.monotonic()
        self._orphans = self.spill.leftovers(_GROUP) if self.spill else None

    def _from_the_dead(self) -> list[Record]:
        """Return the next records of dead processes; those before must be in the store."""
        if self._orphans is None or self._held:
            return []
        try:
            rows = next(self._orphans, None)
        except OSError as error:
            _log.warning("what a killed process left can't be read: %s", error)
            rows = None
        if rows is None:
            self._orphans = None
            return []
        _log.info("%d records of a process that was killed are taken over", len(rows))
        self._meters.recovered.inc(len(rows))
        return [Record(row) for row in rows]

    def _from_disk(self, record: Record) -> Row:
        if self.spill is None or record.place is None:
            raise LookupError("the record is neither in memory nor on disk")
        return decode_row(self.spill.read(record.place))

    def _abandon(self) -> None:
        """Count what is lost at the end: records that are not on disk, and refuse the feedback."""
        with self._wake:
            left = [*self._held.records, *self._records]
            deliveries = [*self._held.deliveries, *self._deliveries]
            self._held = Batch()
            self._records.clear()
            self._deliveries.clear()
        for delivery in deliveries:
            delivery.done(LogFull())
        if lost := sum(record.place is None for record in left):
            self.telemetry.lost.labels("store").inc(lost)
        if kept := len(left) - lost:
            _log.warning("%d records wait on disk for the next start", kept)

    def _forget_weight(self, delivery: Delivery) -> None:
        rows, size = delivery.weight
        self._feedback[0] -= rows
        self._feedback[1] -= size

    def _measure(self) -> None:
        self.telemetry.backlog.set(len(self._records) + len(self._held.records))
        if self.spill:
            self._meters.ahead.set(self.spill.size)


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
