"""Rows about the loop: its turns, the journal of each, and what the schedule decided.

They hold ids, figures and sentences, never texts of requests.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class TurnRow(Base):
    """One turn of the loop. `fence` rises with each move: a stale worker can't write.

    `slot` is the project's name while the turn is under way and null once it has ended: being
    unique, it lets one turn run at a time. `holder` works on it until `lease_until`.
    """

    __tablename__ = "turns"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    project: Mapped[str] = mapped_column(String(80), index=True)
    slot: Mapped[str | None] = mapped_column(String(80), unique=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    fence: Mapped[int] = mapped_column(default=0)
    why: Mapped[str] = mapped_column(Text)  # what started it, in words
    waits: Mapped[str | None] = mapped_column(Text)  # for whom or what, in words
    problem: Mapped[str | None] = mapped_column(Text)  # what went wrong in this state, if it did
    tries: Mapped[int] = mapped_column(default=0)  # of this state that went wrong
    facts: Mapped[dict[str, Any]]  # what the states before gave: batch, dataset, adapter, ...
    seconds: Mapped[float] = mapped_column(default=0.0)  # of work so far
    holder: Mapped[str | None] = mapped_column(String(120))
    lease_until: Mapped[datetime | None]
    started_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    since: Mapped[datetime] = mapped_column(default=utc_now)  # in this state
    ended_at: Mapped[datetime | None]


class TurnEventRow(Base):
    """One line of a turn's journal: what moved or was decided, why, on which evidence, by whom."""

    __tablename__ = "turn_events"
    __table_args__ = (UniqueConstraint("turn", "fence"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    turn: Mapped[str] = mapped_column(ForeignKey("turns.id"), index=True)
    fence: Mapped[int]
    from_state: Mapped[str] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    evidence: Mapped[dict[str, Any]]
    author: Mapped[str] = mapped_column(String(80), default="")  # empty: the loop itself
    seconds: Mapped[float] = mapped_column(default=0.0)  # of work since the line before
    at: Mapped[datetime] = mapped_column(default=utc_now)


class ScheduleRow(Base):
    """What the schedule of a project decided last; a new row only when it says something else."""

    __tablename__ = "schedule_decisions"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    project: Mapped[str] = mapped_column(String(80), index=True)
    due: Mapped[bool]
    reason: Mapped[str] = mapped_column(Text)
    turn: Mapped[str | None] = mapped_column(String(32))  # that it started
    at: Mapped[datetime] = mapped_column(default=utc_now)
