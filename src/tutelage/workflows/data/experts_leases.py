"""Who has which item before them: leases are taken, renewed, given back and closed by an answer.

Every function here but `renew` works inside its caller's write transaction. SQLite runs those one
after another; PostgreSQL passes locked rows by. So two people never take the same slot.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.store.annotations import AnnotationRow, AnnotatorRow, AssignmentRow, BatchRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_people import require

LEASE_S = 30 * 60.0  # an item that somebody opened is theirs for so long


def take(session: Session, name: str, at: datetime, lease_s: float) -> AssignmentRow | None:
    """Lease the next slot to a person and return it; None if nothing is left for them.

    The item they left open comes first, then their own in order, then what anyone of a batch may
    take. Leases that have run out are given back on the way.
    """
    session.get(AnnotatorRow, name, with_for_update=True)  # one request of a person at a time
    give_back(session, at)
    row = _left_open(session, name) or _own(session, name) or _shared(session, name)
    if row is not None:
        row.annotator, row.state = name, "leased"
        row.leased_at, row.lease_until = at, at + timedelta(seconds=lease_s)
        session.flush()
    return row


def give_back(session: Session, at: datetime) -> None:
    """End the leases that have run out; a shared slot is anyone's again."""
    over = (AssignmentRow.state == "leased", AssignmentRow.lease_until < at)
    back = {"state": "open", "lease_until": None}
    shared = AssignmentRow.shared.is_(True)
    session.execute(update(AssignmentRow).where(*over, shared).values(annotator=None, **back))
    session.execute(update(AssignmentRow).where(*over).values(**back))


def renew(
    ctx: Context,
    annotator: str,
    item: str,
    *,
    now: datetime | None = None,
    lease_s: float = LEASE_S,
) -> bool:
    """Keep an item that a person is working on; False if somebody else has it by now."""
    at = now or utc_now()
    with ctx.store.begin() as session:
        name = require(session, annotator).name
        row = _slot(session, item, name)
        if row is None:
            return False
        if row.state in ("open", "leased"):
            row.annotator, row.state = name, "leased"
            row.leased_at, row.lease_until = at, at + timedelta(seconds=lease_s)
        return True


def close(session: Session, item: str, name: str, at: datetime, *, skipped: bool) -> None:
    """Close the slot that an answer fills: the person's own, or a free one of the item."""
    row = _slot(session, item, name)
    if row is not None:
        row.annotator, row.state = name, "skipped" if skipped else "done"
        row.done_at, row.lease_until = at, None


def reopen(session: Session, item: str, name: str, at: datetime) -> None:
    """Put an item that a person had closed before them again."""
    row = _slot(session, item, name)
    if row is not None:
        row.annotator, row.state, row.done_at = name, "leased", None
        row.leased_at, row.lease_until = at, at + timedelta(seconds=LEASE_S)


def is_answered(name: str) -> Any:
    """Return the condition that a person's answer to the slot's item is in force."""
    return exists().where(
        AnnotationRow.item == AssignmentRow.item,
        AnnotationRow.annotator == name,
        AnnotationRow.undone_at.is_(None),
    )


def _first(session: Session, query: Any) -> AssignmentRow | None:
    row: AssignmentRow | None = session.scalars(
        query.limit(1).with_for_update(skip_locked=True, of=AssignmentRow)
    ).first()
    return row


def _left_open(session: Session, name: str) -> AssignmentRow | None:
    query = select(AssignmentRow).where(
        AssignmentRow.annotator == name, AssignmentRow.state == "leased"
    )
    return _first(session, query.order_by(AssignmentRow.leased_at.desc(), AssignmentRow.id))


def _own(session: Session, name: str) -> AssignmentRow | None:
    mine = (AssignmentRow.annotator == name, AssignmentRow.state == "open")
    batch = session.scalars(
        select(BatchRow.id)
        .where(exists().where(AssignmentRow.batch == BatchRow.id, *mine))
        .order_by(BatchRow.at, BatchRow.id)
        .limit(1)
    ).first()
    if batch is None:
        return None
    query = select(AssignmentRow).where(AssignmentRow.batch == batch, *mine)
    return _first(session, query.order_by(AssignmentRow.place, AssignmentRow.id))


def _shared(session: Session, name: str) -> AssignmentRow | None:
    """Return a free slot of a batch the person is in, of an item they have not had."""
    free = (AssignmentRow.annotator.is_(None), AssignmentRow.state == "open")
    batches = session.execute(
        select(BatchRow.id, BatchRow.people)
        .where(exists().where(AssignmentRow.batch == BatchRow.id, *free))
        .order_by(BatchRow.at, BatchRow.id)
    ).all()
    other = AssignmentRow.__table__.alias("had")
    had = exists().where(other.c.item == AssignmentRow.item, other.c.annotator == name)
    for batch, people in batches:
        if name not in people:
            continue
        query = select(AssignmentRow).where(
            AssignmentRow.batch == batch, *free, ~had, ~is_answered(name)
        )
        row = _first(session, query.order_by(AssignmentRow.place, AssignmentRow.id))
        if row is not None:
            return row
    return None


def _slot(session: Session, item: str, name: str) -> AssignmentRow | None:
    """Return a person's slot of an item, or a free one that they may take."""
    own = session.scalars(
        select(AssignmentRow).where(AssignmentRow.item == item, AssignmentRow.annotator == name)
    ).first()
    if own is not None:
        return own
    query = (
        select(AssignmentRow)
        .where(
            AssignmentRow.item == item,
            AssignmentRow.annotator.is_(None),
            AssignmentRow.state == "open",
        )
        .order_by(AssignmentRow.id)
    )
    for row in session.scalars(query.with_for_update(skip_locked=True, of=AssignmentRow)):
        if name in session.get_one(BatchRow, row.batch).people:
            return row
    return None
