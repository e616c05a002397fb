"""One table for every score, whoever gave it: metric, rule, judge, person, production signal."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class EvaluationRow(Base):
    """One evaluation: candidates over a dataset version, and the verdict."""

    __tablename__ = "evaluations"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    dataset: Mapped[str] = mapped_column(String(64), index=True)
    candidate: Mapped[str] = mapped_column(String(64))
    verdict: Mapped[str] = mapped_column(String(24))
    summary: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ScoreRow(Base):
    """One value for one (example, output). `value` is null when it could not be scored."""

    __tablename__ = "scores"
    __table_args__ = (Index("ix_scores_evaluation_candidate", "evaluation", "candidate"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    evaluation: Mapped[str | None] = mapped_column(String(64))
    item: Mapped[str] = mapped_column(String(64), index=True)  # example id or record id
    candidate: Mapped[str] = mapped_column(String(80))
    metric: Mapped[str] = mapped_column(String(48))
    value: Mapped[float | None]
    evidence: Mapped[dict[str, Any]]
    source: Mapped[str] = mapped_column(String(16))  # metric, rule, judge, human, signal
    at: Mapped[datetime] = mapped_column(default=utc_now)
