"""Rows about live evaluation: which records were drawn, and whether they were scored.

Their scores are rows of `scores` without an evaluation, whose item is the record and whose
candidate is the release.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Index, String, Text, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base
from tutelage.store.judgements import JudgeVerdictRow
from tutelage.store.scores import ScoreRow


class LiveRow(Base):
    """One record that was drawn for scoring; what it needs of the record outlives it.

    States: waiting, done, skipped (`problem` says why). `owner` scores it until `until`.
    """

    __tablename__ = "live_evaluations"
    __table_args__ = (
        Index("ix_live_evaluations_state", "state", "at"),
        Index("ix_live_evaluations_release", "release", "at"),
    )

    record: Mapped[str] = mapped_column(String(64), primary_key=True)
    deployment: Mapped[str] = mapped_column(String(80))
    release: Mapped[str] = mapped_column(String(64))
    rollout: Mapped[str | None] = mapped_column(String(32))
    arm: Mapped[str] = mapped_column(String(16))  # stable, canary, shadow
    at: Mapped[datetime] = mapped_column(index=True)  # when the request ended
    state: Mapped[str] = mapped_column(String(12), default="waiting")
    owner: Mapped[str | None] = mapped_column(String(32))
    until: Mapped[datetime | None]
    scored_at: Mapped[datetime | None]
    problem: Mapped[str] = mapped_column(Text, default="")
    drawn_at: Mapped[datetime] = mapped_column(default=utc_now)


def strip_live(session: Session, records: Sequence[str]) -> None:
    """Delete the words that live evaluation holds on these records; the values of scores stay."""
    drawn = select(LiveRow.record).where(LiveRow.record.in_(records))
    session.execute(delete(JudgeVerdictRow).where(JudgeVerdictRow.item.in_(drawn)))
    session.execute(
        update(ScoreRow)
        .where(ScoreRow.evaluation.is_(None), ScoreRow.item.in_(records))
        .values(evidence={})
    )


def forget_live(session: Session, records: Sequence[str]) -> None:
    """Delete all that live evaluation holds on these records, judges' words included."""
    drawn = select(LiveRow.record).where(LiveRow.record.in_(records))
    session.execute(delete(JudgeVerdictRow).where(JudgeVerdictRow.item.in_(drawn)))
    session.execute(
        delete(ScoreRow).where(ScoreRow.evaluation.is_(None), ScoreRow.item.in_(records))
    )
    session.execute(delete(LiveRow).where(LiveRow.record.in_(records)))
