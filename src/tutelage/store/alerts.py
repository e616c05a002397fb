"""Rows about what operators should know: events, alerts, notices to webhooks, silences."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base

_FIRING = text("state = 'firing'")


class EventRow(Base):
    """One thing that happened to what is served. `key` makes a repeated telling the same row.

    `weighed` is whether the alert rules have seen it.
    """

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_weighed", "weighed", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(String(80), unique=True)
    kind: Mapped[str] = mapped_column(String(48), index=True)  # rollout.promoted, engine.restarted
    level: Mapped[str] = mapped_column(String(8))  # info, warning, error
    deployment: Mapped[str | None] = mapped_column(String(80))
    subject: Mapped[str] = mapped_column(String(80), default="")  # which one: a key, a rollout
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]]
    weighed: Mapped[bool] = mapped_column(default=False)
    at: Mapped[datetime] = mapped_column(default=utc_now, index=True)


class AlertRow(Base):
    """One episode of a rule that fires; at most one of a `key` fires at a time.

    States: firing, resolved. `seen_at` is when it last held, `told_at` when a notice was made.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "ix_alerts_firing", "key", unique=True,
            sqlite_where=_FIRING, postgresql_where=_FIRING,
        ),
    )  # fmt: skip

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(String(64))  # hash of the rule and its labels
    rule: Mapped[str] = mapped_column(String(64), index=True)
    labels: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(8))
    level: Mapped[str] = mapped_column(String(8))
    message: Mapped[str] = mapped_column(Text)
    value: Mapped[float | None]
    threshold: Mapped[float | None]
    count: Mapped[int] = mapped_column(default=1)  # events, or looks at which it held
    since: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    seen_at: Mapped[datetime] = mapped_column(default=utc_now)
    told_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class NoticeRow(Base):
    """One message to one webhook, kept until it is delivered or given up.

    States: waiting, sent, failed. `next_at` is when it may be tried; a gateway that tries it
    moves that on first, so that no other does.
    """

    __tablename__ = "alert_notices"
    __table_args__ = (Index("ix_alert_notices_state", "state", "next_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)  # the receiver's dedup key
    alert: Mapped[int] = mapped_column(ForeignKey("alerts.id"), index=True)
    webhook: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(8))  # firing, resolved, noted
    body: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(8), default="waiting")
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text)
    next_at: Mapped[datetime] = mapped_column(default=utc_now)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    sent_at: Mapped[datetime | None]


class SilenceRow(Base):
    """Alerts that nobody is told of until `until`: those whose rule matches the pattern."""

    __tablename__ = "alert_silences"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    rule: Mapped[str] = mapped_column(String(64))  # a name, or a pattern with *
    deployment: Mapped[str | None] = mapped_column(String(80))
    reason: Mapped[str] = mapped_column(Text, default="")
    author: Mapped[str] = mapped_column(String(80), default="")
    until: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
