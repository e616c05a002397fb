"""Rows about judges: every verdict a model gave, and how far a judge agreed with experts.

A verdict is found by the hash of all that was asked, so no question is paid for twice.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class JudgeVerdictRow(Base):
    """One reply of a judge. `outcome` is null where the reply could not be read; it still cost."""

    __tablename__ = "judge_verdicts"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)  # hash of what was asked
    judge: Mapped[str] = mapped_column(String(240), index=True)  # model and address
    criterion: Mapped[str] = mapped_column(String(48))
    item: Mapped[str] = mapped_column(String(64), index=True)  # example id
    outcome: Mapped[str | None] = mapped_column(String(16))  # a level's number; first, second, tie
    reply: Mapped[str] = mapped_column(Text)
    problem: Mapped[str] = mapped_column(Text, default="")
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    at: Mapped[datetime] = mapped_column(default=utc_now)


class JudgeTrustRow(Base):
    """One measurement of a judge against experts on one criterion; the newest one counts."""

    __tablename__ = "judge_trust"
    __table_args__ = (Index("ix_judge_trust_judge_rubric", "judge", "rubric"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    judge: Mapped[str] = mapped_column(String(240))  # a judge, or all of a panel
    rubric: Mapped[str] = mapped_column(String(64))  # hash of the criterion as it was asked
    criterion: Mapped[str] = mapped_column(String(48))
    mode: Mapped[str] = mapped_column(String(12))  # pointwise, pairwise
    kappa: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    n: Mapped[int]  # rows that experts and the judge both decided on
    figures: Mapped[dict[str, Any]]  # other coefficients, confusion matrix, the pairs themselves
    source: Mapped[str] = mapped_column(String(240))  # the experts' file
    at: Mapped[datetime] = mapped_column(default=utc_now)
