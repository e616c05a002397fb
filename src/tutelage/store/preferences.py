"""Rows about comparisons: two answers to one input, and which one a person found better."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class ComparisonRow(Base):
    """One person's choice between two answers. The newest one of a person on two answers counts.

    `item` is the hash of the turns before the answer, `example` the row without its answer.
    `key` makes a repeated delivery the same row; `pair` is the same for both orders of one pair.
    """

    __tablename__ = "comparisons"
    __table_args__ = (Index("ix_comparisons_pair_author", "pair", "author"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    item: Mapped[str] = mapped_column(String(24), index=True)
    pair: Mapped[str] = mapped_column(String(24))
    example: Mapped[dict[str, Any]]
    first: Mapped[str] = mapped_column(Text)
    second: Mapped[str] = mapped_column(Text)
    first_from: Mapped[str | None] = mapped_column(String(160))  # who wrote it: model or release
    second_from: Mapped[str | None] = mapped_column(String(160))
    choice: Mapped[str] = mapped_column(String(8))  # first, second, tie
    author: Mapped[str] = mapped_column(String(80))
    why: Mapped[str] = mapped_column(Text, default="")
    seconds: Mapped[float | None]
    split: Mapped[str | None] = mapped_column(String(16))  # the side the input had, if any
    source: Mapped[str] = mapped_column(String(160), default="")  # file:line, or the page
    key: Mapped[str] = mapped_column(String(64), unique=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
