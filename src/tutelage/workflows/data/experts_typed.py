"""What a person is writing and has not given yet, kept as they type; and taking an answer back.

`take_back` puts the answer into the unfinished text again, so that nothing said is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.errors import DataError
from tutelage.store.annotations import AnnotationRow
from tutelage.store.base import insert_into
from tutelage.store.kept import KeptTextRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_leases import reopen
from tutelage.workflows.data.experts_people import require

FIELDS = ("answer", "comment")


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


def keep_typed(ctx: Context, annotator: str, item: str, **fields: str) -> None:
    """Keep what a person has typed about an item so far: its `answer`, its `comment`.

    A field that is not named stays. It is no answer: nobody else sees it.
    """
    odd = next((name for name in fields if name not in FIELDS), None)
    if odd is not None:
        raise DataError(f"{odd!r} is nothing that is typed", fix=f"Use {', '.join(FIELDS)}")
    with ctx.store.begin() as session:
        _write(ctx, session, annotator, item, fields)


def typed_in(session: Session, annotator: str, item: str) -> dict[str, str]:
    """Return what a person has typed about an item and not given yet; empty if nothing."""
    rows = session.execute(
        select(KeptTextRow.item, KeptTextRow.text).where(
            KeptTextRow.person == annotator, KeptTextRow.item.in_(keys_of(item))
        )
    )
    return {key.rpartition(":")[2]: text for key, text in rows}


def drop_typed(session: Session, annotator: str, item: str) -> None:
    """Forget what was typed about an item: it was given, or there is no use for it."""
    session.execute(
        delete(KeptTextRow).where(
            KeptTextRow.person == annotator, KeptTextRow.item.in_(keys_of(item))
        )
    )


def keys_of(item: str) -> list[str]:
    """Return the names under which texts about an item are kept."""
    return [f"label:{item}:{field}" for field in FIELDS]


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
        said = {"comment": row.comment, "answer": row.answer or ""}
        _write(ctx, session, name, row.item, {field: text for field, text in said.items() if text})
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


def _write(ctx: Context, session: Session, name: str, item: str, fields: Mapping[str, str]) -> None:
    for field, text in fields.items():
        values = {"text": text, "at": utc_now()}
        insert = insert_into(ctx.store.engine, KeptTextRow)
        row = insert.values(person=name, item=f"label:{item}:{field}", **values)
        session.execute(row.on_conflict_do_update(index_elements=["person", "item"], set_=values))


def forget_typed(ctx: Context, annotator: str, item: str) -> None:
    """Forget what was typed about an item, in a transaction of its own."""
    with ctx.store.begin() as session:
        drop_typed(session, annotator, item)
