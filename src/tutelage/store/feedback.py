"""Rows about the order of production: records that changed sides, and how far looks have come."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class SideMoveRow(Base):
    """A record that was moved out of training, because it is a twin of a row that is held out."""

    __tablename__ = "side_moves"

    record: Mapped[str] = mapped_column(String(64), primary_key=True)
    before: Mapped[str] = mapped_column(String(16))  # the side it had
    after: Mapped[str] = mapped_column(String(16))  # the more held-out one
    how: Mapped[str] = mapped_column(String(16))  # exact, near, meaning
    similarity: Mapped[float]  # 0..1: share of letters that agree, or a cosine
    twin: Mapped[str] = mapped_column(String(64))  # a record's id, or a dataset row's
    at: Mapped[datetime] = mapped_column(default=utc_now, index=True)


class MarkRow(Base):
    """Up to where a look at the records has come, by the look's name."""

    __tablename__ = "feedback_marks"

    name: Mapped[str] = mapped_column(String(48), primary_key=True)
    at: Mapped[datetime]
