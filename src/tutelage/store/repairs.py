"""Rows about decisions on examples: what a person (or a step they ran) changed, and why."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class RepairRow(Base):
    """One change to one example. Sources are never edited: curation applies repairs in order.

    Rows with one `batch` were decided together and are undone together (`undone_at`).
    """

    __tablename__ = "repairs"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    example_id: Mapped[str] = mapped_column(String(64), index=True)
    action: Mapped[str] = mapped_column(String(16))  # drop, label, answer, input
    value: Mapped[str] = mapped_column(Text, default="")
    reason: Mapped[str] = mapped_column(Text, default="")
    author: Mapped[str | None] = mapped_column(String(128))
    batch: Mapped[str] = mapped_column(String(32), index=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    undone_at: Mapped[datetime | None]
