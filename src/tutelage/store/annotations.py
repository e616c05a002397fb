"""Rows about people's answers: who labels, by which guideline, what is asked, what they said.

An answer is never overwritten: a later one of the same person is a new row that supersedes it, and
one that was taken back stays as a row that counts no more.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class AnnotatorRow(Base):
    """One person who labels. An inactive one gets no more items; their answers stay."""

    __tablename__ = "annotators"

    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    active: Mapped[bool] = mapped_column(default=True)
    added_at: Mapped[datetime] = mapped_column(default=utc_now)


class GuidelineRow(Base):
    """One version of what annotators are told. The newest one is in force."""

    __tablename__ = "guidelines"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    text: Mapped[str] = mapped_column(Text)
    note: Mapped[str] = mapped_column(Text, default="")
    author: Mapped[str | None] = mapped_column(String(80))
    at: Mapped[datetime] = mapped_column(default=utc_now)


class ItemRow(Base):
    """One thing to label. `id` is the hash of the turns before the answer.

    `example` is the row without its answer; `label` and `answer` are what the row said before.
    """

    __tablename__ = "label_items"

    id: Mapped[str] = mapped_column(String(24), primary_key=True)
    example: Mapped[dict[str, Any]]
    source: Mapped[str] = mapped_column(String(16), index=True)  # dataset, file, production, import
    example_id: Mapped[str | None] = mapped_column(String(64), index=True)
    split: Mapped[str | None] = mapped_column(String(16))  # the side it had when it was asked
    label: Mapped[str | None] = mapped_column(Text)
    answer: Mapped[str | None] = mapped_column(Text)
    added_at: Mapped[datetime] = mapped_column(default=utc_now)


class BatchRow(Base):
    """Items that were given out together: to whom, how many answers each, drawn how."""

    __tablename__ = "label_batches"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    people: Mapped[list[Any]]
    overlap: Mapped[int]
    source: Mapped[str] = mapped_column(String(16))
    seed: Mapped[int]
    at: Mapped[datetime] = mapped_column(default=utc_now)


class AssignmentRow(Base):
    """One answer that is wanted. Without an annotator anyone of the batch may take it.

    States: open, leased (someone has it before them until `lease_until`), done, skipped.
    """

    __tablename__ = "assignments"
    __table_args__ = (
        UniqueConstraint("item", "annotator", name="uq_assignments_item_annotator"),
        Index("ix_assignments_annotator_state", "annotator", "state"),
        Index("ix_assignments_queue", "batch", "annotator", "state", "place"),
        Index("ix_assignments_lease", "state", "lease_until"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    batch: Mapped[str] = mapped_column(ForeignKey("label_batches.id"), index=True)
    item: Mapped[str] = mapped_column(ForeignKey("label_items.id"), index=True)
    annotator: Mapped[str | None] = mapped_column(ForeignKey("annotators.name"))
    shared: Mapped[bool] = mapped_column(default=False)  # goes back to anyone when a lease ends
    place: Mapped[int]  # order inside the batch
    why: Mapped[str] = mapped_column(Text, default="")  # in words, why the item was chosen
    state: Mapped[str] = mapped_column(String(16), default="open")
    leased_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    done_at: Mapped[datetime | None]


class DraftRow(Base):
    """What a model proposed for an item. `prompt` is the hash of what it was told."""

    __tablename__ = "drafts"
    __table_args__ = (
        UniqueConstraint("item", "model", "prompt", name="uq_drafts_item_model_prompt"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    item: Mapped[str] = mapped_column(ForeignKey("label_items.id"), index=True)
    text: Mapped[str] = mapped_column(Text)
    label: Mapped[str | None] = mapped_column(Text)
    problem: Mapped[str | None] = mapped_column(Text)  # why it can't be shown, if it can't
    model: Mapped[str] = mapped_column(String(160))
    prompt: Mapped[str] = mapped_column(String(64))
    tokens: Mapped[int] = mapped_column(default=0)
    at: Mapped[datetime] = mapped_column(default=utc_now)


class AnnotationRow(Base):
    """One person's answer to one item. `key` makes a repeated delivery the same row.

    `edit_distance` counts the characters that differ from the draft (Levenshtein).
    """

    __tablename__ = "annotations"
    __table_args__ = (Index("ix_annotations_item_annotator", "item", "annotator"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    item: Mapped[str] = mapped_column(ForeignKey("label_items.id"))
    annotator: Mapped[str] = mapped_column(ForeignKey("annotators.name"), index=True)
    label: Mapped[str | None] = mapped_column(Text)
    answer: Mapped[str | None] = mapped_column(Text)
    flags: Mapped[list[Any]]  # unsure, skip
    comment: Mapped[str] = mapped_column(Text, default="")
    seconds: Mapped[float | None]
    draft: Mapped[int | None] = mapped_column(ForeignKey("drafts.id"))
    edit_distance: Mapped[int | None]
    guideline: Mapped[int | None] = mapped_column(ForeignKey("guidelines.version"))
    supersedes: Mapped[int | None] = mapped_column(ForeignKey("annotations.number"))
    source: Mapped[str] = mapped_column(String(64), default="tutelage")  # or the tool and file
    extra: Mapped[dict[str, Any]]  # answers to other questions of an imported task
    key: Mapped[str] = mapped_column(String(64), unique=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    undone_at: Mapped[datetime | None]  # taken back by its author: it counts no more


class AdjudicationRow(Base):
    """The final decision on an item that was disputed. The newest one counts."""

    __tablename__ = "adjudications"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    item: Mapped[str] = mapped_column(ForeignKey("label_items.id"), index=True)
    label: Mapped[str | None] = mapped_column(Text)
    answer: Mapped[str | None] = mapped_column(Text)
    author: Mapped[str] = mapped_column(String(80))
    why: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[datetime] = mapped_column(default=utc_now)
