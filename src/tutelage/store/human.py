"""Rows about human evaluation: what a study asks, who is asked what, and what they judged.

A judgement is never overwritten: a correction and an undo are new rows that supersede it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class HumanStudyRow(Base):
    """One study over an evaluation's answers. `secret` keys the hash that shuffles the sides."""

    __tablename__ = "human_studies"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    evaluation: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(16))  # pairwise, rubric
    candidates: Mapped[list[Any]]
    criteria: Mapped[list[Any]]  # of a rubric: {name, question, levels}
    people: Mapped[list[Any]]
    overlap: Mapped[int]
    shared: Mapped[bool]  # whoever is free takes the next one
    sample: Mapped[dict[str, Any]]  # how the rows were drawn, and out of how many
    seed: Mapped[int]
    secret: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(default=utc_now)


class HumanTaskRow(Base):
    """One thing to judge: two answers to a row, or one answer by a rubric.

    `asked` is false where both answers are the same text: a tie that nobody needs to look at.
    """

    __tablename__ = "human_tasks"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    study: Mapped[str] = mapped_column(ForeignKey("human_studies.id"), index=True)
    item: Mapped[str] = mapped_column(String(64), index=True)  # example id
    cluster: Mapped[str] = mapped_column(String(64))  # rows that belong together share it
    messages: Mapped[list[Any]]  # the turns before the answer
    reference: Mapped[str | None] = mapped_column(Text)  # shown only if the study says so
    first: Mapped[str] = mapped_column(String(80))  # candidate
    second: Mapped[str | None] = mapped_column(String(80))
    first_text: Mapped[str] = mapped_column(Text)
    second_text: Mapped[str | None] = mapped_column(Text)
    asked: Mapped[bool] = mapped_column(default=True)


class HumanAssignmentRow(Base):
    """One judgement that is wanted. Without a rater anyone of the study may take it.

    The id is drawn at random and is all that a sheet shows. States: open, leased (someone has it
    before them until `lease_until`), done, skipped.
    """

    __tablename__ = "human_assignments"
    __table_args__ = (
        UniqueConstraint("task", "rater", name="uq_human_assignments_task_rater"),
        Index("ix_human_assignments_study_rater_state", "study", "rater", "state"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey("human_studies.id"))
    task: Mapped[int] = mapped_column(ForeignKey("human_tasks.id"), index=True)
    rater: Mapped[str | None] = mapped_column(String(80))
    place: Mapped[int]  # order in which a rater sees it
    state: Mapped[str] = mapped_column(String(16), default="open")
    leased_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    done_at: Mapped[datetime | None]


class HumanJudgementRow(Base):
    """One judgement of one rater; the newest of an assignment counts, an undo counts as none.

    `choice` is first, second or tie, whatever side they were shown on; `left` is the candidate
    that stood on the left. `levels` holds the level of each criterion, 0 the lowest.
    """

    __tablename__ = "human_judgements"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    assignment: Mapped[str] = mapped_column(ForeignKey("human_assignments.id"), index=True)
    study: Mapped[str] = mapped_column(ForeignKey("human_studies.id"), index=True)
    task: Mapped[int] = mapped_column(ForeignKey("human_tasks.id"))
    rater: Mapped[str] = mapped_column(String(80))
    kind: Mapped[str] = mapped_column(String(8))  # answer, skip, undo
    choice: Mapped[str | None] = mapped_column(String(8))
    left: Mapped[str | None] = mapped_column(String(80))
    levels: Mapped[dict[str, Any]]
    comment: Mapped[str] = mapped_column(Text, default="")
    seconds: Mapped[float | None]
    supersedes: Mapped[int | None] = mapped_column(ForeignKey("human_judgements.number"))
    source: Mapped[str] = mapped_column(String(160), default="tutelage")  # or file:line
    key: Mapped[str] = mapped_column(String(64), unique=True)  # a repeated delivery is one row
    at: Mapped[datetime] = mapped_column(default=utc_now)
