"""Rows about production: one record a request, the signals sent on it, and their deliveries."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base

IMPORTED = "imported"  # the arm of records that another tool logged


class RecordRow(Base):
    """One production request and its response. `split` is decided by hash on arrival."""

    __tablename__ = "records"
    __table_args__ = (
        Index("ix_records_deployment_at", "deployment", "at"),
        Index("ix_records_release_at", "release", "at"),
        Index("ix_records_rollout_at", "rollout", "at"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # the response id
    deployment: Mapped[str] = mapped_column(String(80))
    release: Mapped[str] = mapped_column(String(64))
    rollout: Mapped[str | None] = mapped_column(String(32), index=True)
    step: Mapped[int | None]
    arm: Mapped[str] = mapped_column(String(16))  # stable, canary, shadow, imported
    user: Mapped[str | None] = mapped_column(String(128))
    key_name: Mapped[str | None] = mapped_column(String(80))
    split: Mapped[str] = mapped_column(String(16), index=True)
    group_key: Mapped[str] = mapped_column(String(64))
    messages: Mapped[list[Any]]
    response: Mapped[str] = mapped_column(Text)
    finish_reason: Mapped[str] = mapped_column(String(16))
    status: Mapped[int]  # HTTP status the client saw
    error: Mapped[str | None] = mapped_column(Text)
    latency_ms: Mapped[float]
    first_token_ms: Mapped[float | None]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    entropy: Mapped[float | None]  # nats a token, where the client asked for log-probabilities
    checks: Mapped[dict[str, Any]]  # guard name -> {"ok": bool, "why": str}
    at: Mapped[datetime] = mapped_column(default=utc_now, index=True)


class SignalRow(Base):
    """One piece of feedback. `key` makes a repeated delivery the same row."""

    __tablename__ = "signals"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    record: Mapped[str] = mapped_column(String(64), index=True)  # may arrive before the record
    kind: Mapped[str] = mapped_column(String(32), index=True)  # rating, edit, comment, or a name
    explicit: Mapped[bool]
    value: Mapped[dict[str, Any]]  # {"value": ...}
    author: Mapped[str | None] = mapped_column(String(128))
    at: Mapped[datetime] = mapped_column(default=utc_now, index=True)


class HeldSignalRow(Base):
    """Feedback by a limited key that came before its record: a signal once that is known."""

    __tablename__ = "held_signals"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # hash of key and deployments
    key: Mapped[str] = mapped_column(String(64))  # here and below as a signal's
    record: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    explicit: Mapped[bool]
    value: Mapped[dict[str, Any]]
    author: Mapped[str | None] = mapped_column(String(128))
    at: Mapped[datetime] = mapped_column(default=utc_now)
    deployments: Mapped[list[Any]]  # that the key may touch


class DeliveryRow(Base):
    """A delivery of feedback that came with an idempotency key, so that a retry is known as one."""

    __tablename__ = "deliveries"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)  # hash of sender and key
    digest: Mapped[str] = mapped_column(String(64))  # of what was delivered
    at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
