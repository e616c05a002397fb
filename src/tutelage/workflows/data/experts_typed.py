"""What a person is writing and has not given yet, kept as they type; and taking an answer back.

`take_back` puts the answer into the unfinished text again, so that nothing said is lost.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.errors import DataError
from tutelage.store.annotations import AnnotationRow, TypedRow
from tutelage.store.base import insert_into
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_leases import reopen
from tutelage.workflows.data.experts_people import require
from tutelage.workflows.data.experts_rows import find_item

FIELDS = ("answer", "comment", "flags")


@dataclass(frozen=True)
class TakenBack:
    """An answer that its author took back: what it said. A skipped item said nothing."""

    number: int
    item: str
    label: str | None
    answer: str | None
    comment: str
    flags: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def keep_typed(ctx: Context, annotator: str, item: str, **fields: Any) -> None:
    """Keep what a person has typed about an item so far; fields that are not named stay.

    Known are `answer`, `comment` and `flags`. It is no answer: nobody else sees it.
    """
    odd = next((name for name in fields if name not in FIELDS), None)
    if odd is not None:
        raise DataError(f"{odd!r} is nothing that is typed", fix=f"Use {', '.join(FIELDS)}")
    with ctx.store.begin() as session:
        name = require(session, annotator).name
        key = find_item(session, item).id
        _write(ctx, session, name, key, {**typed_in(session, name, key), **fields})


def typed(ctx: Context, annotator: str, item: str) -> dict[str, Any]:
    """Return what a person has typed about an item and not given yet; empty if nothing."""
    with ctx.store.session() as session:
        return typed_in(session, annotator, item)


def typed_in(session: Session, annotator: str, item: str) -> dict[str, Any]:
    """Return the same inside a session."""
    row = session.get(TypedRow, (annotator, item))
    return dict(row.fields) if row is not None else {}


def drop_typed(session: Session, annotator: str, item: str) -> None:
    """Forget what was typed about an item: it was given, or there is no use for it."""
    session.execute(delete(TypedRow).where(TypedRow.annotator == annotator, TypedRow.item == item))


def take_back(ctx: Context, annotator: str, *, now: datetime | None = None) -> TakenBack:
    """Take a person's newest answer (or skip) back; again, the one before it, and so on.

    The item is before them again with what they had said, and an answer that this one superseded
    counts again. Raises DataError if there is none.
    """
    at = now or utc_now()
    with ctx.store.begin() as session:
        name = require(session, annotator).name
        row = _newest(session, name)
        if row is None:
            raise DataError(
                f"{name} has given no answer that could be taken back",
                fix="Only answers that were given here can be; imported ones can't",
            )
        row.undone_at = at
        session.flush()
        if _newest(session, name, row.item) is None:
            reopen(session, row.item, name, at)
        flags = [flag for flag in row.flags if flag != "skip"]
        said = {"comment": row.comment, "flags": flags}
        if row.answer is not None:
            said["answer"] = row.answer
        _write(ctx, session, name, row.item, {**typed_in(session, name, row.item), **said})
        return TakenBack(row.number, row.item, row.label, row.answer, row.comment, tuple(row.flags))


def _newest(session: Session, name: str, item: str | None = None) -> AnnotationRow | None:
    query = select(AnnotationRow).where(
        AnnotationRow.annotator == name, AnnotationRow.undone_at.is_(None)
    )
    if item is None:
        query = query.where(AnnotationRow.source == "tutelage")
    else:
        query = query.where(AnnotationRow.item == item)
    return session.scalars(query.order_by(AnnotationRow.number.desc()).limit(1)).first()


def _write(ctx: Context, session: Session, name: str, item: str, fields: dict[str, Any]) -> None:
    row = {"annotator": name, "item": item, "fields": fields, "at": utc_now()}
    insert = insert_into(ctx.store.engine, TypedRow)
    change = {"fields": insert.excluded.fields, "at": insert.excluded.at}
    keys = ["annotator", "item"]
    session.execute(insert.on_conflict_do_update(index_elements=keys, set_=change), [row])
