"""What people said, read from the store: of every item, or of the items that are named.

It reads votes, what is awaited and what was decided; it does not judge them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Row, Select, Text, case, cast, func, or_, select
from sqlalchemy.orm import Session

from tutelage.core.errors import DataError
from tutelage.core.example import Example
from tutelage.data.annotation.items import Item
from tutelage.data.annotation.votes import Decision, Vote, Voted
from tutelage.store.annotations import AdjudicationRow, AnnotationRow, AssignmentRow

_AT_ONCE = 500  # items in one question to the store
_WHOLE = 5_000  # items from which on everything is read in one go
_NO_TEXT = Example(messages=())

Items = Sequence[str] | None


def waiting_of(session: Session, batch: str | None, items: Items = None) -> dict[str, int]:
    """Return how many answers are awaited by item; items of the batch alone, if one is named."""
    query = select(AssignmentRow.item, AssignmentRow.state, func.count()).group_by(
        AssignmentRow.item, AssignmentRow.state
    )
    if batch is not None:
        query = query.where(AssignmentRow.batch == batch)
    found: dict[str, int] = defaultdict(int)
    for part in _parts(query, AssignmentRow.item, items):
        for item, state, count in session.execute(part):
            found[item] += count if state in ("open", "leased") else 0
    if batch is not None and not found:
        raise DataError(
            f"there is no batch {batch!r}", fix="`tutelage data label progress` lists the batches"
        )
    return found


def votes_of(session: Session, items: Items = None) -> dict[str, list[Vote]]:
    """Return the newest answer of each person that was not taken back, by item and name."""
    found: dict[str, list[Vote]] = defaultdict(list)
    for newest in _parts(_newest(), AnnotationRow.item, items):
        rows = session.execute(
            select(AnnotationRow.item, *_VOTE)
            .where(AnnotationRow.number.in_(newest))
            .order_by(AnnotationRow.annotator)
        )
        for row in rows:
            found[row.item].append(_vote(row))
    return found


def decided_of(session: Session, items: Items = None) -> dict[str, Decision]:
    """Return the newest decision on each item that was adjudicated."""
    query = select(AdjudicationRow).order_by(AdjudicationRow.number)
    return {
        row.item: Decision(row.label, row.answer, "adjudicated", (row.author,), row.why)
        for part in _parts(query, AdjudicationRow.item, items)
        for row in session.scalars(part)
    }


def state_of(session: Session) -> tuple[Any, ...]:
    """Return what changes whenever an answer, a decision, an order or a take-back comes in."""
    newest = (
        func.max(AnnotationRow.number),
        func.max(AnnotationRow.undone_at),
        func.max(AdjudicationRow.number),
        func.max(AssignmentRow.id),
    )
    return tuple(session.scalar(select(one)) for one in newest)


def answered_items(session: Session) -> list[str]:
    """Return the items that somebody answered, skipped or decided."""
    counted = select(AnnotationRow.item).where(AnnotationRow.undone_at.is_(None))
    said = session.scalars(counted.distinct())
    ruled = session.scalars(select(AdjudicationRow.item).distinct())
    return sorted({*said, *ruled})


def doubtful_items(session: Session) -> list[str]:
    """Return the items that may need a decision: answers differ, or one is unsure or a skip.

    Texts that differ only in case or space are among them; decided items are not.
    """
    said = func.coalesce(AnnotationRow.label, AnnotationRow.answer)
    flagged = case((cast(AnnotationRow.flags, Text) != "[]", 1), else_=0)
    query = (
        select(AnnotationRow.item)
        .where(
            AnnotationRow.number.in_(_newest()),
            AnnotationRow.item.not_in(select(AdjudicationRow.item)),
        )
        .group_by(AnnotationRow.item)
        .having(or_(func.count(said.distinct()) > 1, func.max(flagged) == 1))
    )
    return list(session.scalars(query))


def bare_votes(session: Session, items: Sequence[str]) -> list[Voted]:
    """Return where the named items stand; their texts stay in the store."""
    votes, decided = votes_of(session, items), decided_of(session, items)
    waiting = waiting_of(session, None, items)
    return [
        Voted(
            Item(name, _NO_TEXT, ""),
            tuple(votes.get(name, ())),
            waiting.get(name, 0),
            decided.get(name),
        )
        for name in items
    ]


def _newest() -> Select[int]:
    return (
        select(func.max(AnnotationRow.number))
        .where(AnnotationRow.undone_at.is_(None))
        .group_by(AnnotationRow.item, AnnotationRow.annotator)
    )


def _parts(query: Any, column: Any, items: Items) -> Iterator[Any]:
    """Yield the query whole, which may tell of others, or once for each part of a few items."""
    if items is None or len(items) > _WHOLE:
        yield query
        return
    for part in chunks(items):
        yield query.where(column.in_(part))


def chunks(items: Iterable[str]) -> Iterator[list[str]]:
    """Yield items in parts that fit into one question."""
    whole = list(items)
    for start in range(0, len(whole), _AT_ONCE):
        yield whole[start : start + _AT_ONCE]


_VOTE = (
    AnnotationRow.annotator, AnnotationRow.label, AnnotationRow.answer, AnnotationRow.flags,
    AnnotationRow.comment, AnnotationRow.seconds, AnnotationRow.draft, AnnotationRow.edit_distance,
)  # fmt: skip


def _vote(row: Row[Any]) -> Vote:
    return Vote(
        row.annotator, row.label, row.answer, tuple(row.flags), row.comment, row.seconds, row.draft,
        row.edit_distance,
    )  # fmt: skip
