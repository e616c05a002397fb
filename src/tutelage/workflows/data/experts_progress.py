"""How far the labelling is: items by state, people with their pace, batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.data.annotation.votes import Voted
from tutelage.store.annotations import AnnotationRow, AnnotatorRow, AssignmentRow, BatchRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_votes import answered_items, bare_votes

_STATES = ("open", "leased", "done", "skipped")


def progress(ctx: Context, voted: Sequence[Voted] | None = None) -> dict[str, Any]:
    """Return how far the work is: items by state, people with their pace, batches.

    `voted` are all items that somebody answered, where they were read already.
    """
    with ctx.store.session() as session:
        if voted is None:
            voted = bare_votes(session, answered_items(session))
        answered = [one.item.id for one in voted]
        states = Counter(one.state for one in voted)
        given = set(session.scalars(select(AssignmentRow.item).distinct()))
        untouched = len(given.difference(answered))
        if untouched:
            states["open"] += untouched
        return {
            "items": len(answered) + untouched,
            "answers": sum(len(one.answers) for one in voted),
            "states": dict(states),
            "people": _people(session),
            "batches": _batches(session),
        }


def _people(session: Session) -> list[dict[str, Any]]:
    counted: dict[str, dict[str, int]] = {}
    for name, state, count in session.execute(
        select(AssignmentRow.annotator, AssignmentRow.state, func.count())
        .where(AssignmentRow.annotator.is_not(None))
        .group_by(AssignmentRow.annotator, AssignmentRow.state)
    ):
        counted.setdefault(str(name), {})[state] = count
    times: dict[str, list[float]] = {}
    paces = select(AnnotationRow.annotator, AnnotationRow.seconds)
    for name, seconds in session.execute(paces.where(AnnotationRow.undone_at.is_(None))):
        if seconds is not None:
            times.setdefault(name, []).append(seconds)
    found = []
    for row in session.scalars(select(AnnotatorRow).order_by(AnnotatorRow.name)):
        own = counted.get(row.name, {})
        left = own.get("open", 0) + own.get("leased", 0)
        middle = median(times[row.name]) if times.get(row.name) else None
        found.append(
            {
                "name": row.name,
                "active": row.active,
                "given": sum(own.values()),
                "done": own.get("done", 0),
                "skipped": own.get("skipped", 0),
                "left": left,
                "seconds": middle,
                "left_seconds": middle * left if middle is not None else None,
            }
        )
    return found


def _batches(session: Session) -> list[dict[str, Any]]:
    counted: dict[str, dict[str, int]] = {}
    for batch, state, count in session.execute(
        select(AssignmentRow.batch, AssignmentRow.state, func.count()).group_by(
            AssignmentRow.batch, AssignmentRow.state
        )
    ):
        counted.setdefault(batch, {})[state] = count
    return [
        {
            "batch": row.id,
            "at": row.at.isoformat(timespec="seconds"),
            "people": list(row.people),
            "overlap": row.overlap,
            "source": row.source,
            **{s: counted.get(row.id, {}).get(s, 0) for s in _STATES},
        }
        for row in session.scalars(select(BatchRow).order_by(BatchRow.at.desc()))
    ]
