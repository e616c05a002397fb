"""Rows about outputs: artifacts with their parents, finished stages, jobs, frozen splits."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class ArtifactRow(Base):
    """One immutable output on disk."""

    __tablename__ = "artifacts"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32), index=True)
    path: Mapped[str]
    seed: Mapped[int | None]
    versions: Mapped[dict[str, Any]]
    meta: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ParentRow(Base):
    """An edge of lineage: `child` was made from `parent`."""

    __tablename__ = "artifact_parents"

    child: Mapped[str] = mapped_column(ForeignKey("artifacts.hash"), primary_key=True)
    parent: Mapped[str] = mapped_column(String(64), primary_key=True)


class StageRow(Base):
    """The last finished run of a stage: skipped next time when `input_hash` is the same."""

    __tablename__ = "stages"

    stage: Mapped[str] = mapped_column(String(32), primary_key=True)
    input_hash: Mapped[str] = mapped_column(String(64))
    output: Mapped[str] = mapped_column(String(64))
    seconds: Mapped[float]
    finished_at: Mapped[datetime] = mapped_column(default=utc_now)


class JobRow(Base):
    """A long job: who runs it, how far it is, how it ended."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))  # running, done, failed, interrupted
    pid: Mapped[int | None]
    progress: Mapped[float] = mapped_column(default=0.0)  # 0..1
    message: Mapped[str] = mapped_column(default="")
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)


class SplitRow(Base):
    """The side of one example, decided once. Rows are added, never changed to train from test."""

    __tablename__ = "split_assignments"

    example_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    split: Mapped[str] = mapped_column(String(16), index=True)
    cluster: Mapped[str] = mapped_column(String(64), index=True)
    reason: Mapped[str] = mapped_column(String(64), default="")
    assigned_at: Mapped[datetime] = mapped_column(default=utc_now)
