"""Rows about mining: each look at production, the rows it wanted, corrections that were spread.

A row names its record, which may be forgotten; its reasons may quote an answer or a dataset's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class MineRow(Base):
    """One look at production. `figures` holds counts, clusters and what was left out."""

    __tablename__ = "mine_runs"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    since: Mapped[datetime | None]
    until: Mapped[datetime]
    budget: Mapped[int]
    seed: Mapped[int]
    batch: Mapped[str | None] = mapped_column(String(32))  # of the label queue
    figures: Mapped[dict[str, Any]]


class MinedRecordRow(Base):
    """One record that a look wanted labelled, with its reasons: [{kind, strength, words}]."""

    __tablename__ = "mined_records"
    __table_args__ = (Index("ix_mined_records_run_rank", "run", "rank"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run: Mapped[str] = mapped_column(ForeignKey("mine_runs.id"))
    rank: Mapped[int]
    record: Mapped[str] = mapped_column(String(64), index=True)
    item: Mapped[str] = mapped_column(String(24), index=True)  # in the label queue; "" if none
    split: Mapped[str] = mapped_column(String(16))
    score: Mapped[float]
    times: Mapped[int]
    cluster: Mapped[str] = mapped_column(String(120))
    reasons: Mapped[list[Any]]


def strip_mined(session: Session, records: Sequence[str]) -> None:
    """Delete the words of looks on these records: they quote answers and comments."""
    session.execute(
        update(MinedRecordRow).where(MinedRecordRow.record.in_(records)).values(reasons=[])
    )


class SpreadRow(Base):
    """A correction that was applied to similar records, whole; `undone_at` takes it back.

    Its signals' keys are in `signals`: they are removed when it is undone.
    """

    __tablename__ = "spread_corrections"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    record: Mapped[str] = mapped_column(String(64), index=True)  # the corrected one
    author: Mapped[str] = mapped_column(String(80))
    threshold: Mapped[float]
    signals: Mapped[list[Any]]
    undone_at: Mapped[datetime | None]
