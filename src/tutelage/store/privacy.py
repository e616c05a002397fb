"""Rows about people who asked to be forgotten: what was done, and tombstones of their records.

Neither holds a name: users and records are kept as keyed hashes, to recognise what comes late.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class ErasureRow(Base):
    """One user who was forgotten. States: open (begun; the next run goes on), done.

    `work` holds what is still needed to go on, and is emptied at the end.
    """

    __tablename__ = "erasures"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user: Mapped[str] = mapped_column(String(64), index=True)  # keyed hash of the user's key
    hashed: Mapped[str] = mapped_column(String(64))  # keyed hash of the form that logs may have
    state: Mapped[str] = mapped_column(String(8), default="open")
    work: Mapped[dict[str, Any]]
    report: Mapped[dict[str, Any]]
    reason: Mapped[str] = mapped_column(String(240), default="")
    at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    done_at: Mapped[datetime | None]


class ForgottenRow(Base):
    """A record that was erased: feedback that comes for it later is erased too."""

    __tablename__ = "forgotten_records"

    record: Mapped[str] = mapped_column(String(64), primary_key=True)  # keyed hash of its id
    erasure: Mapped[str] = mapped_column(String(32), index=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
