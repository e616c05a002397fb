"""Which records are scored: drawn by their ids, kept in the store, and claimed by one worker each.

A drawn record waits until it has been scored, whoever is killed meanwhile. A claim ends by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.config_live import LiveEvaluation
from tutelage.store.base import Store, insert_into
from tutelage.store.live import LiveRow
from tutelage.store.records import RecordRow

LEASE = timedelta(minutes=5)  # a claim whose owner is not heard of is over
_DIGITS = 8  # of the id's end, hexadecimal and random
_AT_ONCE = 1_000  # records drawn in one transaction
_COPIED = (
    RecordRow.id, RecordRow.deployment, RecordRow.release, RecordRow.rollout, RecordRow.arm,
    RecordRow.at,
)  # fmt: skip


@dataclass(frozen=True)
class Shares:
    """What part of the records is drawn, 0..1: of a rollout's, and of all others."""

    plain: float
    rollout: float

    @classmethod
    def of(cls, settings: LiveEvaluation) -> Shares:
        """Return the shares of the settings."""
        return cls(settings.share, settings.rollout_share)

    def judged(self, row: LiveRow, share: float) -> bool:
        """Return whether a drawn record is in the part `share` of those that were drawn."""
        whole = self.rollout if row.rollout is not None else self.plain
        return share >= 1 or row.record[-_DIGITS:] < _edge(whole * share)


def draw(store: Store, shares: Shares, since: datetime) -> datetime:
    """Let all records since `since` that are in the sample wait; return the newest one's time.

    Records that were drawn before stay as they are. Only answered requests are drawn.
    """
    newest: datetime = since
    while True:
        with store.session() as session:
            rows = session.execute(_fresh(shares, since).limit(_AT_ONCE)).all()
        if not rows:
            return newest
        names = ("record", "deployment", "release", "rollout", "arm", "at")
        values = [
            {**dict(zip(names, row, strict=True)), "state": "waiting", "problem": "",
             "drawn_at": utc_now()}
            for row in rows
        ]  # fmt: skip
        with store.begin() as session:
            session.execute(insert_into(store.engine, LiveRow).on_conflict_do_nothing(), values)
        newest = max([newest, *(row.at for row in rows)])
        if len(rows) < _AT_ONCE:
            return newest


def _fresh(shares: Shares, since: datetime) -> Any:
    known = select(LiveRow.record).where(LiveRow.record == RecordRow.id)
    return (
        select(*_COPIED)
        .where(
            RecordRow.at >= since,
            RecordRow.status == 200,
            or_(
                _drawn(RecordRow.rollout.is_(None), shares.plain),
                _drawn(RecordRow.rollout.is_not(None), shares.rollout),
            ),
            ~known.exists(),
        )
        .order_by(RecordRow.at)
    )


def _drawn(of: ColumnElement[bool], share: float) -> ColumnElement[bool]:
    if share >= 1:
        return of
    end = func.substr(RecordRow.id, func.length(RecordRow.id) - _DIGITS + 1)
    return and_(of, end < _edge(share))


def _edge(share: float) -> str:
    """Return the digits that the drawn ids' ends lie under; above them all for a share of 1."""
    return f"{int(share * 16**_DIGITS):0{_DIGITS}x}" if share < 1 else "g"


def waiting(store: Store) -> int:
    """Return how many drawn records are not scored yet."""
    with store.session() as session:
        query = select(func.count()).select_from(LiveRow).where(LiveRow.state == "waiting")
        return int(session.scalar(query) or 0)


def last_drawn(store: Store) -> datetime | None:
    """Return when the newest drawn request ended, or None if there is none."""
    with store.session() as session:
        return session.scalar(select(func.max(LiveRow.at)))


def claim(store: Store, owner: str, limit: int, now: datetime | None = None) -> list[LiveRow]:
    """Return up to `limit` waiting records, oldest first, that `owner` alone scores for a while."""
    now = now or utc_now()
    free = or_(LiveRow.owner.is_(None), LiveRow.until < now)
    with store.begin() as session:
        rows = list(
            session.scalars(
                select(LiveRow)
                .where(LiveRow.state == "waiting", free)
                .order_by(LiveRow.at, LiveRow.record)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
        )
        for row in rows:
            row.owner, row.until = owner, now + LEASE
    return rows


def release_claims(store: Store, owner: str) -> None:
    """Let others score what `owner` has claimed and not scored."""
    with store.begin() as session:
        session.execute(
            update(LiveRow)
            .where(LiveRow.owner == owner, LiveRow.state == "waiting")
            .values(owner=None, until=None)
        )


def still_owned(session: Session, owner: str, records: Sequence[str]) -> list[LiveRow]:
    """Return those of `records` that `owner` still has to score, locked until the end."""
    query = select(LiveRow).where(
        LiveRow.record.in_(records), LiveRow.owner == owner, LiveRow.state == "waiting"
    )
    return list(session.scalars(query.with_for_update()))
