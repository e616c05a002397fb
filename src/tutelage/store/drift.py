"""Rows about drift: comparisons that were made, traffic accepted as normal, the watch's state.

They hold figures and ids of records, never their texts.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class DriftReportRow(Base):
    """One comparison, or one alarm of the watch. `report` is DriftReport.as_dict()."""

    __tablename__ = "drift_reports"
    __table_args__ = (Index("ix_drift_reports_deployment_at", "deployment", "at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    deployment: Mapped[str] = mapped_column(String(80))
    kind: Mapped[str] = mapped_column(String(8))  # check, alarm
    moved: Mapped[bool] = mapped_column(index=True)
    sentence: Mapped[str] = mapped_column(Text)
    report: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(default=utc_now)


class DriftReferenceRow(Base):
    """Traffic that counts as normal from now on: the records of a deployment in a span of time.

    The newest one of a deployment is in force.
    """

    __tablename__ = "drift_references"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    deployment: Mapped[str] = mapped_column(String(80), index=True)
    since: Mapped[datetime]
    until: Mapped[datetime]
    rows: Mapped[int]
    note: Mapped[str] = mapped_column(Text, default="")
    author: Mapped[str] = mapped_column(String(80), default="")
    at: Mapped[datetime] = mapped_column(default=utc_now)


class DriftWatchRow(Base):
    """How far the watch of a deployment has read, and its evidence so far.

    `reference` names what it compares with; another one begins it anew. `fence` rises with every
    write, so that two that look at once can't both go on from the same state.
    """

    __tablename__ = "drift_watches"

    deployment: Mapped[str] = mapped_column(String(80), primary_key=True)
    reference: Mapped[str] = mapped_column(String(80))
    state: Mapped[dict[str, Any]]
    alarm: Mapped[str | None] = mapped_column(String(32))  # the report of the alarm that stands
    fence: Mapped[int] = mapped_column(default=0)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)
