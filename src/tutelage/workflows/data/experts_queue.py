"""How much one person has before them, what they answered last, and whose queues there are.

Counted by index: a queue of a hundred thousand items costs no more than it must.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.example import Example
from tutelage.store.annotations import (
    AnnotationRow,
    AnnotatorRow,
    AssignmentRow,
    BatchRow,
    ItemRow,
)
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_people import known_name, require

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Queue:
    """One person's work. `left` is theirs alone, `anyone` waits for whoever is free."""

    name: str
    done: int
    skipped: int
    left: int
    anyone: int
    today: int  # answers of the last 24 hours

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Said:
    """One answer a person gave: `text` is the beginning of what was asked."""

    number: int
    item: str
    text: str
    label: str | None
    answer: str | None
    skipped: bool
    at: datetime


@dataclass(frozen=True)
class Batch:
    """Items that were given out together; answers that are there, being given, and awaited."""

    batch: str
    at: datetime
    people: tuple[str, ...]
    overlap: int
    source: str
    done: int
    busy: int
    open: int


def join(ctx: Context, name: str) -> str:
    """Return a person's name as an annotator; who is new is added.

    Raises DataError if the name can't be one, or the person was taken off.
    """
    plain = known_name(name)
    with ctx.store.session() as session:
        if session.get(AnnotatorRow, plain) is not None:
            return require(session, plain).name
    with ctx.store.begin() as session:
        if session.get(AnnotatorRow, plain) is None:
            session.add(AnnotatorRow(name=plain))
    return plain


def queue_of(ctx: Context, name: str, *, now: datetime | None = None) -> Queue:
    """Return how much a person has done and has left."""
    since = (now or utc_now()) - _DAY
    with ctx.store.session() as session:
        states = _states(session, name)
        today = session.scalar(
            select(func.count()).where(
                AnnotationRow.annotator == name,
                AnnotationRow.at > since,
                AnnotationRow.undone_at.is_(None),
            )
        )
        return Queue(
            name,
            states.get("done", 0),
            states.get("skipped", 0),
            states.get("open", 0) + states.get("leased", 0),
            _free(session, name),
            today or 0,
        )


def queues(ctx: Context) -> list[Queue]:
    """Return everybody who has something to answer, by name."""
    with ctx.store.session() as session:
        names = session.scalars(
            select(AnnotatorRow.name)
            .where(AnnotatorRow.active.is_(True))
            .order_by(AnnotatorRow.name)
        ).all()
    found = [queue_of(ctx, name) for name in names]
    return [one for one in found if one.left or one.anyone]


def said_last(ctx: Context, name: str, count: int = 10) -> list[Said]:
    """Return a person's newest answers, the newest first; what was taken back is not there."""
    with ctx.store.session() as session:
        rows = session.execute(
            select(AnnotationRow, ItemRow.example)
            .join(ItemRow, ItemRow.id == AnnotationRow.item)
            .where(AnnotationRow.annotator == name, AnnotationRow.undone_at.is_(None))
            .order_by(AnnotationRow.number.desc())
            .limit(count)
        ).all()
    return [
        Said(
            row.number,
            row.item,
            " ".join(Example.model_validate(example).input_text.split())[:160],
            row.label,
            row.answer,
            "skip" in row.flags,
            row.at,
        )
        for row, example in rows
    ]


def batches_of(ctx: Context, *, offset: int = 0, limit: int = 25) -> tuple[list[Batch], int]:
    """Return the items that were given out together, the newest first, and how many there are."""
    with ctx.store.session() as session:
        total = session.scalar(select(func.count()).select_from(BatchRow)) or 0
        rows = session.scalars(
            select(BatchRow).order_by(BatchRow.at.desc(), BatchRow.id).offset(offset).limit(limit)
        ).all()
        counted = (
            select(AssignmentRow.batch, AssignmentRow.state, func.count())
            .where(AssignmentRow.batch.in_([row.id for row in rows]))
            .group_by(AssignmentRow.batch, AssignmentRow.state)
        )
        states: dict[str, dict[str, int]] = {}
        for batch, state, count in session.execute(counted):
            states.setdefault(batch, {})[state] = count
    return [_given(row, states.get(row.id, {})) for row in rows], total


def _given(row: BatchRow, states: Mapping[str, int]) -> Batch:
    return Batch(
        row.id,
        row.at,
        tuple(row.people),
        row.overlap,
        row.source,
        states.get("done", 0) + states.get("skipped", 0),
        states.get("leased", 0),
        states.get("open", 0),
    )


def _states(session: Session, name: str) -> dict[str, int]:
    counted = (
        select(AssignmentRow.state, func.count())
        .where(AssignmentRow.annotator == name)
        .group_by(AssignmentRow.state)
    )
    return dict(session.execute(counted).tuples().all())


def _free(session: Session, name: str) -> int:
    """Return how many slots of a person's batches nobody has taken."""
    batches = [row.id for row in session.scalars(select(BatchRow)) if name in row.people]
    counted = select(func.count()).where(  # answered by ix_assignments_queue alone
        AssignmentRow.batch.in_(batches),
        AssignmentRow.annotator.is_(None),
        AssignmentRow.state == "open",
    )
    return session.scalar(counted) or 0
