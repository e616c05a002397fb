"""Turns of the loop in the store: one at a time, moved under a fence, held under a lease.

A worker that dies leaves the turn in the state it was in. On this machine a file lock tells at
once that it is gone; on another machine its lease has to run out. Nothing here does the work.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from tutelage.core.artifact import finite, utc_now
from tutelage.core.errors import Conflict, DataError
from tutelage.store.base import Store
from tutelage.store.improve import TurnEventRow, TurnRow

STATES = ("mine", "review", "dataset", "start", "train", "gate", "release", "canary")
ENDED = ("done", "kept", "cancelled")  # released; stable stays; given up by a person
LEASE_S = 60.0
_BEAT_S = 15.0


@dataclass(frozen=True)
class Turn:
    """One turn as it was read. `facts` is what its states gave so far."""

    id: str
    project: str
    state: str
    fence: int
    why: str
    waits: str | None
    problem: str | None
    tries: int
    facts: dict[str, Any]
    seconds: float
    started_at: datetime
    since: datetime
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self.state in ENDED

    def as_dict(self) -> dict[str, Any]:
        """Return plain data; times are ISO 8601."""
        return {
            "turn": self.id,
            "state": self.state,
            "why": self.why,
            "waits": self.waits,
            "problem": self.problem,
            "facts": self.facts,
            "seconds": round(self.seconds, 1),
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "since": self.since.isoformat(timespec="seconds"),
            "ended_at": self.ended_at.isoformat(timespec="seconds") if self.ended_at else None,
        }


@dataclass(frozen=True)
class Move:
    """What a state's work came to: the next state (or the same, to wait) and why.

    `facts` are added to the turn's; `waits` says for whom or what it waits.
    """

    to: str
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    waits: str | None = None


def begin(
    store: Store,
    project: str,
    why: str,
    facts: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> Turn:
    """Return a new turn in its first state; raise Conflict if one is under way."""
    at = now or utc_now()
    row = TurnRow(
        id=secrets.token_hex(6), project=project, slot=project, state=STATES[0], fence=0, why=why,
        facts=dict(facts or {}), started_at=at, since=at,
    )  # fmt: skip
    try:
        with store.begin() as session:
            session.add(row)
            session.flush()
            session.add(_event(row, "", why, {}, "", 0.0, at))
            return _turn(row)
    except IntegrityError:
        raise Conflict(
            "a turn of the loop is under way",
            where=project,
            fix="`tutelage improve status` shows it; go on with `tutelage improve resume`",
        ) from None


def current(store: Store, project: str) -> Turn | None:
    """Return the turn under way, or None."""
    with store.session() as session:
        row = session.scalars(select(TurnRow).where(TurnRow.slot == project)).first()
        return _turn(row) if row else None


def turns(store: Store, project: str, limit: int = 50) -> list[Turn]:
    """Return the newest turns, newest first."""
    with store.session() as session:
        query = select(TurnRow).where(TurnRow.project == project)
        rows = session.scalars(query.order_by(TurnRow.started_at.desc(), TurnRow.id).limit(limit))
        return [_turn(row) for row in rows]


def find(store: Store, project: str, name: str | None = None) -> Turn:
    """Return the turn whose id starts so, or the newest. Raises DataError if there is none."""
    found = [turn for turn in turns(store, project, 1000) if turn.id.startswith(name or "")]
    if not found:
        what = f"there is no turn {name!r}" if name else "there was no turn of the loop yet"
        raise DataError(what, where=project, fix="`tutelage improve` begins one")
    return found[0]


def journal(store: Store, turn: str) -> list[dict[str, Any]]:
    """Return what happened in a turn, oldest first, as plain data."""
    with store.session() as session:
        rows = session.scalars(
            select(TurnEventRow).where(TurnEventRow.turn == turn).order_by(TurnEventRow.fence)
        )
        return [
            {
                "at": row.at.isoformat(timespec="seconds"),
                "from_state": row.from_state,
                "to_state": row.to_state,
                "reason": row.reason,
                "evidence": row.evidence,
                "author": row.author,
                "seconds": round(row.seconds, 1),
            }
            for row in rows
        ]


def move(
    store: Store,
    turn: Turn,
    step: Move,
    *,
    holder: str | None = None,
    author: str = "",
    seconds: float = 0.0,
    now: datetime | None = None,
) -> Turn:
    """Write one move and its line of the journal; return the turn as it is then.

    A turn that waits for what it waited for before is left as it is. Raises Conflict if somebody
    moved it since, or if `holder` lost it.
    """
    at = now or utc_now()
    with store.begin() as session:
        row = _locked(session, turn, holder)
        row.seconds += seconds
        same = step.to == row.state and step.waits == row.waits and row.problem is None
        news = {**row.facts, **step.facts} != row.facts
        if same and step.waits is not None and not news:
            return _turn(row)
        before = row.state
        row.fence += 1
        row.facts = finite({**row.facts, **step.facts})
        row.state, row.waits, row.problem, row.tries = step.to, step.waits, None, 0
        if step.to != before:
            row.since = at
        if step.to in ENDED:
            row.slot, row.ended_at, row.holder, row.lease_until = None, at, None, None
        took = _untold(session, row)
        session.add(_event(row, before, step.reason, step.evidence, author, took, at))
        return _turn(row)


def failed(store: Store, turn: Turn, problem: str, *, holder: str, seconds: float = 0.0) -> Turn:
    """Keep what went wrong; the turn stays in its state and the next worker tries again."""
    with store.begin() as session:
        row = _locked(session, turn, holder)
        row.problem, row.tries = problem, row.tries + 1
        row.seconds += seconds
        row.fence += 1
        took = _untold(session, row)
        session.add(_event(row, row.state, problem, {}, "", took, utc_now()))
        return _turn(row)


def _locked(session: Session, turn: Turn, holder: str | None) -> TurnRow:
    row = session.get(TurnRow, turn.id, with_for_update=True)
    if row is None:
        raise DataError("the turn is gone", where=turn.id)
    if row.fence != turn.fence or (holder is not None and row.holder != holder):
        raise Conflict(
            f"the turn was moved by somebody else (it is in {row.state!r} now)",
            where=turn.id,
            fix="Look at it with `tutelage improve status`",
        )
    return row


def _untold(session: Session, row: TurnRow) -> float:
    """Return the seconds of work that no line of the journal tells yet.

    Heartbeats wrote part of them, those of workers that were killed too.
    """
    told = select(func.sum(TurnEventRow.seconds)).where(TurnEventRow.turn == row.id)
    return max(0.0, row.seconds - (session.scalar(told) or 0.0))


def _event(
    row: TurnRow,
    before: str,
    reason: str,
    evidence: Mapping[str, Any],
    author: str,
    seconds: float,
    at: datetime,
) -> TurnEventRow:
    return TurnEventRow(
        turn=row.id, fence=row.fence, from_state=before, to_state=row.state, reason=reason,
        evidence=finite(dict(evidence)), author=author, seconds=seconds, at=at,
    )  # fmt: skip


def _turn(row: TurnRow) -> Turn:
    return Turn(
        row.id, row.project, row.state, row.fence, row.why, row.waits, row.problem, row.tries,
        dict(row.facts), row.seconds, row.started_at, row.since, row.ended_at,
    )  # fmt: skip


class Hold:
    """A turn held by this process while the block runs: `with Hold(store, turn) as hold`.

    Raises Conflict on entry if another machine works on it; on this one the caller holds the lock
    of the turns. `spent()` returns the seconds of work
    that are not written yet; a heartbeat writes them meanwhile, so that a kill loses few.
    """

    def __init__(self, store: Store, turn: Turn) -> None:
        self._store, self._turn = store, turn
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="improve-lease", daemon=True)
        self._guard = threading.Lock()
        self._since = time.monotonic()
        self.lost = False  # a heartbeat saw that the turn has ended, or is another's

    def __enter__(self) -> Self:
        self._take()
        self._since = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        with self._store.begin() as session:
            row = session.get(TurnRow, self._turn.id, with_for_update=True)
            if row is not None and row.holder == self.name:
                row.holder, row.lease_until = None, None

    def spent(self) -> float:
        """Return the seconds since the last call or heartbeat."""
        with self._guard:
            now = time.monotonic()
            took, self._since = now - self._since, now
            return took

    def _take(self) -> None:
        now = utc_now()
        with self._store.begin() as session:
            row = session.get(TurnRow, self._turn.id, with_for_update=True)
            if row is None or row.slot is None:
                return
            elsewhere = row.holder is not None and _host(row.holder) != _host(self.name)
            if elsewhere and row.lease_until is not None and row.lease_until > now:
                raise _taken(str(row.holder))
            row.holder, row.lease_until = self.name, now + timedelta(seconds=LEASE_S)

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT_S):
            took = self.spent()
            try:
                with self._store.begin() as session:
                    row = session.get(TurnRow, self._turn.id, with_for_update=True)
                    if row is None or row.holder != self.name:
                        self.lost = True
                        return
                    row.lease_until = utc_now() + timedelta(seconds=LEASE_S)
                    row.seconds += took
            except SQLAlchemyError:
                continue  # the store was busy: the next beat comes before the lease ends


def _host(holder: str) -> str:
    return holder.split(":")[0]


def busy(turn: Turn | None) -> Conflict:
    """Return what to say while another process of this machine holds the lock of the turns.

    Without a turn under way that is the worker of one that was cancelled a moment ago.
    """
    if turn is not None:
        return _taken("another process of this machine")
    return Conflict(
        "the worker of the turn before is still stopping, and no turn was begun",
        fix="Run the command again in some seconds",
    )


def _taken(who: str) -> Conflict:
    return Conflict(
        f"the turn is being worked on by {who}",
        fix="Wait for it: `tutelage improve status` shows how far it is",
    )
