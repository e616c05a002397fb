"""Rows about use: what budgets have spent and hold, and the days whose records are gone."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class BudgetRow(Base):
    """What one account has spent in one period. Limits stand in the settings and with the keys."""

    __tablename__ = "budgets"

    account: Mapped[str] = mapped_column(String(240), primary_key=True)
    period: Mapped[str] = mapped_column(String(16), primary_key=True)  # 2026-11, 2026-11-26, ...
    spent: Mapped[float] = mapped_column(default=0.0)
    held: Mapped[float] = mapped_column(default=0.0)  # by requests under way: the sum of its holds
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)


class HoldRow(Base):
    """What a request under way may take from an account at most. It ends with the request.

    A gateway renews the holds of its requests; one that expires belonged to a gateway that died.
    """

    __tablename__ = "budget_holds"

    record: Mapped[str] = mapped_column(String(64), primary_key=True)
    account: Mapped[str] = mapped_column(String(240), primary_key=True)
    period: Mapped[str] = mapped_column(String(16))
    unit: Mapped[str] = mapped_column(String(16))  # requests, tokens, cost
    amount: Mapped[float]
    holder: Mapped[str] = mapped_column(String(32), index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class UsageRow(Base):
    """The use of one day whose records were deleted, by who asked what of which release."""

    __tablename__ = "usage_days"

    day: Mapped[str] = mapped_column(String(10), primary_key=True)  # 2026-11-26, UTC
    deployment: Mapped[str] = mapped_column(String(80), primary_key=True)
    release: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(80), primary_key=True)  # "": the local user
    arm: Mapped[str] = mapped_column(String(16), primary_key=True)
    requests: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)  # status 400 and above
    prompt_tokens: Mapped[int] = mapped_column(default=0)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    seconds: Mapped[float] = mapped_column(default=0.0)  # of the requests, added up
