"""What happens to a gateway that an operator should know of, kept in the store.

`EventLog.tell` never blocks, never raises and may be called from any thread; a thread of its own
writes. Rollout moves need no telling: `copy_moves` takes them from the rollouts' journal, so that
one made while no gateway ran is not missed. Texts of requests and answers have no place here.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.config_alerts import Level
from tutelage.store.alerts import AlertRow, EventRow, NoticeRow, SilenceRow
from tutelage.store.base import Store
from tutelage.store.releases import RolloutRow, TransitionRow

_log = logging.getLogger(__name__)
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0  # before the store is tried again
_OVERLAP = 50  # journal rows looked at again: two writers may commit out of order
_KEEP = timedelta(days=90)
_STALE = timedelta(hours=1)  # a move older than this is kept, and nobody is alerted to it
_LEVELS: dict[str, Level] = {"rolled_back": "error", "frozen": "warning", "aborted": "warning"}


@dataclass(frozen=True)
class Happening:
    """One event: `kind` is `topic.what`, `subject` says which one of its kind (a key, a backend).

    `once` makes the same event told twice one row.
    """

    kind: str
    message: str
    level: Level = "info"
    deployment: str | None = None
    subject: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    once: str | None = None
    at: datetime = field(default_factory=utc_now)

    def row(self) -> EventRow:
        """Return the row that keeps it."""
        return EventRow(
            key=(self.once or f"ev_{secrets.token_hex(12)}")[:80],
            kind=self.kind[:48],
            level=self.level,
            deployment=self.deployment,
            subject=self.subject[:80],
            message=self.message,
            data=dict(self.data),
            at=self.at,
        )


def _nobody(happening: Happening) -> None:
    return None


class EventLog:
    """A bounded queue of events and the thread that writes them; without a store, a log line."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        capacity: int = 1000,
        told: Callable[[Happening], None] = _nobody,
    ) -> None:
        self.store = store
        self.told = told  # called with each event, in the teller's thread
        self.lost = 0  # events that did not fit, or for which the store did not come back
        self._items: deque[Happening] = deque()
        self._capacity = capacity
        self._wake = threading.Condition()
        self._closing = False
        self._busy = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the writer."""
        if self.store is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
            self._thread.start()

    def tell(self, happening: Happening) -> None:
        """Keep an event."""
        number = {"info": logging.INFO, "warning": logging.WARNING}.get(happening.level, 40)
        _log.log(
            number,
            "%s",
            happening.message,
            extra={
                "event": happening.kind,
                "deployment": happening.deployment,
                "subject": happening.subject or None,
            },
        )
        self.told(happening)
        if self.store is None:
            return
        with self._wake:
            if len(self._items) >= self._capacity:
                self._items.popleft()
                self.lost += 1
            self._items.append(happening)
            self._wake.notify_all()

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all that was told is written; return False after `timeout` seconds."""
        if self._thread is None:
            return not self._items
        with self._wake:
            return self._wake.wait_for(lambda: not self._items and not self._busy, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Write what is queued, then stop the writer."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        pause_s = _PAUSE_S
        while True:
            with self._wake:
                self._busy = False
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._items or self._closing)
                if not self._items:
                    return
                batch = list(self._items)
                self._items.clear()
                self._busy = True
            try:
                self._write(batch)
                pause_s = _PAUSE_S
            except DBAPIError as error:  # the store is locked, full or gone: they wait for it
                _log.warning("events wait for the store: %s", type(error).__name__)
                if not self._put_back(batch, pause_s):
                    return
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _put_back(self, batch: list[Happening], pause_s: float) -> bool:
        """Wait before the next try; return False if the log is being closed."""
        with self._wake:
            self._items.extendleft(reversed(batch))
            while len(self._items) > self._capacity:
                self._items.popleft()
                self.lost += 1
            if not self._closing:
                self._wake.wait_for(lambda: self._closing, pause_s)
                return True
            self.lost += len(self._items)
            self._items.clear()
            self._busy = False
            self._wake.notify_all()
            return False

    def _write(self, batch: list[Happening]) -> None:
        """Write a batch; raise DBAPIError if the store does not take it."""
        if self.store is None:
            return
        try:
            with self.store.begin() as session:
                for item in batch:
                    add_event(session, item)
        except IntegrityError:  # another gateway told the same: all but that one are written
            self._one_by_one(batch)

    def _one_by_one(self, batch: list[Happening]) -> None:
        if self.store is None:
            return
        for item in batch:
            try:
                with self.store.begin() as session:
                    add_event(session, item)
            except IntegrityError:
                _log.debug("an event is there already: %s", item.once)


def add_event(session: Session, happening: Happening, *, weighed: bool = False) -> bool:
    """Add one event inside a transaction; return False if its `once` is known already."""
    row = happening.row()
    row.weighed = weighed
    known = select(EventRow.id).where(EventRow.key == row.key)
    if happening.once is not None and session.scalars(known).first() is not None:
        return False
    session.add(row)
    session.flush()
    return True


def copy_moves(store: Store, keep: timedelta = _KEEP, now: datetime | None = None) -> int:
    """Take the journal's rollout moves of the last `keep` into the events; return how many."""
    now = now or utc_now()
    with store.session() as session:
        last = session.scalar(select(func.max(TransitionRow.id)))
        if last is None or _copied(session, last, now - keep):
            return 0
    try:
        with store.begin() as session:
            return _copy(session, now, keep)
    except IntegrityError:  # another gateway copies them now
        return 0


def _copy(session: Session, now: datetime, keep: timedelta) -> int:
    after = _newest_copied(session) - _OVERLAP
    query = (
        select(TransitionRow, RolloutRow)
        .join(RolloutRow, RolloutRow.id == TransitionRow.rollout)
        .where(TransitionRow.id > after, TransitionRow.at >= now - keep)
        .order_by(TransitionRow.id)
    )
    return sum(
        add_event(session, _from_move(move, rollout), weighed=now - move.at > _STALE)
        for move, rollout in session.execute(query)
    )


def _copied(session: Session, last: int, since: datetime) -> bool:
    """Return whether the journal's last moves are all events already."""
    moves = select(TransitionRow.id).where(
        TransitionRow.id > last - _OVERLAP, TransitionRow.at >= since
    )
    wanted = {f"move_{number}" for number in session.scalars(moves)}
    found = select(EventRow.key).where(EventRow.key.in_(wanted))
    return wanted == set(session.scalars(found))


def _newest_copied(session: Session) -> int:
    query = select(EventRow.key).where(EventRow.kind.like("rollout.%"))
    newest = session.scalars(query.order_by(EventRow.id.desc()).limit(_OVERLAP))
    return max((int(key[5:]) for key in newest if key.startswith("move_")), default=0)


def _from_move(move: TransitionRow, rollout: RolloutRow) -> Happening:
    name = rollout.deployment
    return Happening(
        kind=f"rollout.{move.to_state}",
        message=f"{name}: {move.to_state} at {move.weight:g} %: {move.reason}",
        level=_LEVELS.get(move.to_state, "info"),
        deployment=name,
        subject=rollout.id,
        data={
            "candidate": rollout.candidate[:12],
            "baseline": rollout.baseline[:12],
            "strategy": rollout.strategy,
            "from": move.from_state,
            "step": move.step,
            "weight": move.weight,
            "reason": move.reason,
        },
        once=f"move_{move.id}",
        at=move.at,
    )


def read_events(
    store: Store,
    *,
    since: datetime | None = None,
    after: int = 0,
    kind: str | None = None,
    deployment: str | None = None,
    limit: int = 100,
) -> list[EventRow]:
    """Return the newest events, oldest first. `kind` is a whole kind or a topic (`rollout`)."""
    query = select(EventRow).where(EventRow.id > after)
    if since is not None:
        query = query.where(EventRow.at >= since)
    if kind is not None:
        plain = kind.removesuffix(".*")
        query = query.where((EventRow.kind == plain) | EventRow.kind.like(f"{plain}.%"))
    if deployment is not None:
        query = query.where(EventRow.deployment == deployment)
    with store.session() as session:
        newest = session.scalars(query.order_by(EventRow.id.desc()).limit(limit))
        return list(reversed(list(newest)))


def forget_old(store: Store, before: datetime) -> int:
    """Delete events, ended alerts and their notices, and ended silences older than `before`."""
    with store.begin() as session:
        ended = select(AlertRow.id).where(AlertRow.state != "firing", AlertRow.since < before)
        gone = [
            session.execute(delete(NoticeRow).where(NoticeRow.alert.in_(ended))),
            session.execute(delete(AlertRow).where(AlertRow.id.in_(ended))),
            session.execute(delete(EventRow).where(EventRow.at < before, EventRow.weighed)),
            session.execute(delete(SilenceRow).where(SilenceRow.until < before)),
        ]
        return sum(int(getattr(result, "rowcount", 0)) for result in gone)
