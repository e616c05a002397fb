"""How far experts agree and how far they are, kept between looks.

What nobody has answered yet is counted, not read, so that a long queue costs nothing here.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Text, cast, func, select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.errors import DataError
from tutelage.data.annotation.reliability import READABLE, Annotator, ratings_of, reliability
from tutelage.data.annotation.votes import Voted
from tutelage.data.quality.agreement import Agreement, agreement
from tutelage.data.quality.ratings import Ratings
from tutelage.store.annotations import AnnotationRow, AnnotatorRow, ItemRow
from tutelage.store.base import Store
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.data.experts_progress import progress
from tutelage.workflows.data.experts_rows import item_of
from tutelage.workflows.data.experts_votes import (
    answered_items,
    bare_votes,
    chunks,
    state_of,
    waiting_of,
)

FRESH_S = 10.0  # figures that are younger are not made anew
_MANY = 20_000  # answers from which on a process of its own counts, so that others' pages go on
_SHARE = 20.0  # nor such as are younger than so many times what making them took


@dataclass(frozen=True)
class Figures:
    """Agreement (None, and `why`, where it can't be told), people's records, and progress."""

    agreement: Agreement | None
    why: str
    fix: str
    people: tuple[Annotator, ...]
    progress: dict[str, Any]
    at: datetime


class FiguresDesk:
    """The figures of one project. `figures` makes them anew when something came in since."""

    def __init__(self, ctx: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._ctx, self._clock = ctx, clock
        self._lock = threading.Lock()
        self._found: dict[str | None, tuple[tuple[Any, ...], float, Figures]] = {}

    def figures(self, batch: str | None = None) -> Figures:
        """Return the figures of every item, or of a batch's; DataError for an unknown batch."""
        with self._lock:
            now, kept = self._clock(), self._found.get(batch)
            if kept is not None and now < kept[1]:
                return kept[2]
            key = _state_of(self._ctx)
            if kept is not None and kept[0] == key:
                self._found[batch] = (key, now + FRESH_S, kept[2])
                return kept[2]
            made = (_measure_apart if key[0] > _MANY else _measure)(self._ctx, batch)
            done = self._clock()
            self._found[batch] = (key, done + max(FRESH_S, _SHARE * (done - now)), made)
            return made


def _measure_apart(ctx: Context, batch: str | None) -> Figures:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure_project, ctx.workspace.root, batch).result()


def _measure_project(root: Path, batch: str | None) -> Figures:
    ctx = open_context(root)
    try:
        return _measure(ctx, batch)
    finally:
        ctx.store.close()


def _measure(ctx: Context, batch: str | None) -> Figures:
    with ctx.store.session() as session:
        everything = bare_votes(session, answered_items(session))
        inside = waiting_of(session, batch) if batch is not None else None
        chosen = [one for one in everything if inside is None or one.item.id in inside]
        voted = _with_texts(session, chosen)
    matrix = ratings_of(voted)
    found, why, fix = _agreement(voted, matrix)
    people = tuple(reliability(voted, matrix))
    return Figures(found, why, fix, people, progress(ctx, everything), utc_now())


def _with_texts(session: Session, voted: list[Voted]) -> list[Voted]:
    """Return the items; those that somebody may have answered faster than one reads have texts.

    A text is no longer than the row that it is stored in.
    """
    size = func.length(cast(ItemRow.example, Text))
    sizes: dict[str, int] = dict(session.execute(select(ItemRow.id, size)).tuples().all())
    hurried = [one.item.id for one in voted if _quickest(one) * READABLE < sizes[one.item.id]]
    items = {
        row.id: item_of(row)
        for part in chunks(hurried)
        for row in session.scalars(select(ItemRow).where(ItemRow.id.in_(part)))
    }
    return [replace(one, item=items.get(one.item.id, one.item)) for one in voted]


def _quickest(voted: Voted) -> float:
    return min((vote.seconds for vote in voted.votes if vote.seconds is not None), default=math.inf)


def _agreement(voted: list[Voted], matrix: Ratings) -> tuple[Agreement | None, str, str]:
    """Return the agreement, or None with why there is none and what to do."""
    if not matrix.items:
        if any(one.answers for one in voted):
            why = "The answers are texts, and agreement is computed on labels"
            return None, why, "Look at the texts that differ most under Decide"
        return None, "Nobody has labelled anything yet", "Give items to two people or more"
    try:
        return agreement(matrix), "", ""
    except DataError as error:
        return None, error.what, error.fix or ""


def _state_of(ctx: Context) -> tuple[Any, ...]:
    with ctx.store.session() as session:
        active = select(func.count()).where(AnnotatorRow.active.is_(True))
        everybody = select(func.count()).select_from(AnnotatorRow)
        answers = select(func.count()).select_from(AnnotationRow)
        counts = (session.scalar(one) for one in (answers, active, everybody))
        return (*counts, *state_of(session))


_DESKS: WeakKeyDictionary[Store, FiguresDesk] = WeakKeyDictionary()
_MAKING = threading.Lock()


def figures_of(ctx: Context) -> FiguresDesk:
    """Return the one desk of a project in this process."""
    with _MAKING:
        return _DESKS.setdefault(ctx.store, FiguresDesk(ctx))
