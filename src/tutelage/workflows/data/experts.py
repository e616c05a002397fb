"""Experts at work: the next item, the answer, the skip, how far everybody is.

These are what a labelling page or a terminal calls. An answer is durable when `submit` returns;
delivering it again (the same `key`) changes nothing. An item that somebody has before them is
leased to them for a while, so that several people can work at once.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.errors import DataError
from tutelage.data.annotation.drafts import edit_distance
from tutelage.data.annotation.items import Item, answered
from tutelage.store.annotations import (
    AnnotationRow,
    AssignmentRow,
    BatchRow,
    DraftRow,
    ItemRow,
)
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_answer import checked_answer, known_labels
from tutelage.workflows.data.experts_leases import LEASE_S, close, take
from tutelage.workflows.data.experts_people import current_version, require
from tutelage.workflows.data.experts_rows import find_item, item_of
from tutelage.workflows.data.experts_typed import drop_typed, typed_in
from tutelage.workflows.data.experts_why import why_here

FLAGS = ("unsure", "skip")
_LONGEST_S = 24 * 3600.0  # longer than this nobody thought about one item


@dataclass(frozen=True)
class Shown:
    """One item as an annotator sees it: no earlier label, nobody else's answer.

    `done` of `total` says how far the person is. `messages` are {role, content}. `why` says what
    chose the item, `typed` holds what the person wrote about it and has not given yet.
    """

    item: str
    text: str
    messages: list[dict[str, Any]]
    labels: list[str]
    draft: dict[str, Any] | None  # {id, text, label, model}
    guideline: int | None
    done: int
    total: int
    why: list[str] = field(default_factory=list)
    typed: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Given:
    """One person's answer. `draft` is the draft they began with; `key` names the delivery."""

    item: str
    annotator: str
    label: str | None = None
    answer: str | None = None
    seconds: float | None = None
    comment: str = ""
    flags: tuple[str, ...] = ()
    draft: int | None = None
    key: str | None = None


@dataclass(frozen=True)
class Kept:
    """What was written: the answer's number, the one it supersedes, and the edit of a draft."""

    number: int
    item: str
    label: str | None
    answer: str | None
    supersedes: int | None
    edit_distance: int | None
    repeated: bool = False  # this delivery was kept before


def next_item(
    ctx: Context, annotator: str, *, now: datetime | None = None, lease_s: float = LEASE_S
) -> Shown | None:
    """Return the next item for a person and lease it to them; None if nothing is left.

    The item they left open comes first, then their own in order, then what anyone of a batch
    may take. Leases that have run out are given back on the way.
    """
    at = now or utc_now()
    with ctx.store.begin() as session:
        name = require(session, annotator).name
        row = take(session, name, at, lease_s)
        if row is None:
            return None
        return _shown(ctx, session, session.get_one(ItemRow, row.item), name)


def todo(ctx: Context, annotator: str, count: int | None = None) -> list[Shown]:
    """Return what a person still has to answer, in order, without leasing it."""
    with ctx.store.session() as session:
        name = require(session, annotator).name
        rows = session.scalars(
            select(AssignmentRow.item)
            .join(BatchRow, BatchRow.id == AssignmentRow.batch)
            .where(AssignmentRow.annotator == name, AssignmentRow.state.in_(("leased", "open")))
            .order_by(BatchRow.at, AssignmentRow.batch, AssignmentRow.place, AssignmentRow.id)
            .limit(count)
        ).all()
        return [_shown(ctx, session, session.get_one(ItemRow, item), name) for item in rows]


def show_item(ctx: Context, item: str, annotator: str) -> Shown:
    """Return one item as a person sees it, to answer it again."""
    with ctx.store.session() as session:
        name = require(session, annotator).name
        return _shown(ctx, session, find_item(session, item), name)


def submit(ctx: Context, given: Given, *, now: datetime | None = None) -> Kept:
    """Keep an answer; a later one of the same person supersedes it.

    Raises DataError, with nothing kept, if the person or item is unknown or the answer can't be
    one: a label outside the list, an empty text, a shape the project does not take.
    """
    at = now or utc_now()
    with ctx.store.begin() as session:
        name = require(session, given.annotator).name
        item = find_item(session, given.item)
        before = _delivered(session, given.key)
        if before is not None:
            return _kept(before, repeated=True)
        row = _annotation(ctx, session, given, item_of(item), name)
        row.at = at
        session.add(row)
        close(session, item.id, name, at, skipped="skip" in row.flags)
        drop_typed(session, name, item.id)
        session.flush()
        return _kept(row)


def skip(
    ctx: Context, annotator: str, item: str, *, comment: str = "", seconds: float | None = None
) -> Kept:
    """Pass an item by: it is asked of nobody again by this, and it counts as no answer."""
    given = Given(item, annotator, seconds=seconds, comment=comment, flags=("skip",))
    return submit(ctx, given)


def _shown(ctx: Context, session: Session, row: ItemRow, name: str) -> Shown:
    item = item_of(row)
    counted = dict(
        session.execute(
            select(AssignmentRow.state, func.count())
            .where(AssignmentRow.annotator == name)
            .group_by(AssignmentRow.state)
        )
        .tuples()
        .all()
    )
    draft = session.scalars(
        select(DraftRow)
        .where(DraftRow.item == row.id, DraftRow.problem.is_(None))
        .order_by(DraftRow.id.desc())
    ).first()
    slot = session.scalars(
        select(AssignmentRow).where(AssignmentRow.item == row.id, AssignmentRow.annotator == name)
    ).first()
    return Shown(
        item=row.id,
        text=item.text,
        messages=[m.model_dump(exclude_none=True) for m in item.example.messages],
        labels=known_labels(ctx),
        draft=_plain_draft(draft) if draft is not None else None,
        guideline=current_version(session),
        done=counted.get("done", 0) + counted.get("skipped", 0),
        total=sum(counted.values()),
        why=why_here(session, item, slot),
        typed=typed_in(session, name, row.id),
    )


def _plain_draft(row: DraftRow) -> dict[str, Any]:
    return {"id": row.id, "text": row.text, "label": row.label, "model": row.model}


def _delivered(session: Session, key: str | None) -> AnnotationRow | None:
    if key is None:
        return None
    return session.scalars(select(AnnotationRow).where(AnnotationRow.key == key)).first()


def _annotation(
    ctx: Context, session: Session, given: Given, item: Item, name: str
) -> AnnotationRow:
    odd = next((flag for flag in given.flags if flag not in FLAGS), None)
    if odd is not None:
        raise DataError(f"{odd!r} is no flag", fix=f"Use {' or '.join(FLAGS)}")
    label = answer = None
    distance = None
    if "skip" not in given.flags:
        label, answer = checked_answer(ctx, item, given.label, given.answer)
        distance = _edited(ctx, session, given, item, label, answer)
    newest = session.scalars(
        select(AnnotationRow.number)
        .where(
            AnnotationRow.item == item.id,
            AnnotationRow.annotator == name,
            AnnotationRow.undone_at.is_(None),
        )
        .order_by(AnnotationRow.number.desc())
    ).first()
    return AnnotationRow(
        item=item.id,
        annotator=name,
        label=label,
        answer=answer,
        flags=list(dict.fromkeys(given.flags)),
        comment=given.comment.strip(),
        seconds=_seconds(given.seconds),
        draft=given.draft,
        edit_distance=distance,
        guideline=current_version(session),
        supersedes=newest,
        source="tutelage",
        extra={},
        key=given.key or secrets.token_hex(16),
    )


def _edited(
    ctx: Context,
    session: Session,
    given: Given,
    item: Item,
    label: str | None,
    answer: str | None,
) -> int | None:
    """Return how far an answer is from the draft it began with."""
    if given.draft is None:
        return None
    draft = session.get(DraftRow, given.draft)
    if draft is None or draft.item != item.id:
        raise DataError(
            f"there is no draft {given.draft} of this item", fix="Leave the draft out, or reload"
        )
    final = answered(item.example, label, answer, ctx.config.output.format())
    return edit_distance(draft.text, final.answer or "")


def _seconds(value: float | None) -> float | None:
    if value is None:
        return None
    if not 0 <= value <= _LONGEST_S:
        raise DataError(
            f"{value!r} is not a time spent on an item", fix="Give seconds from 0 to a day"
        )
    return float(value)


def _kept(row: AnnotationRow, *, repeated: bool = False) -> Kept:
    return Kept(
        row.number, row.item, row.label, row.answer, row.supersedes, row.edit_distance, repeated
    )
