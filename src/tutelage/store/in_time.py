"""Reads records in order of time, a chunk a transaction.

A read that stayed open while a million records pass would keep SQLite from emptying its log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from tutelage.store.base import Store
from tutelage.store.records import RecordRow

Place = tuple[datetime, str]  # where a reader stands: time and id of the last record
CHUNK = 2_000  # records of a transaction


def in_time(
    store: Store,
    columns: Sequence[InstrumentedAttribute[Any]],
    where: Sequence[ColumnElement[bool]],
    after: Place | None = None,
) -> Iterator[Any]:
    """Yield rows of `columns`, `at` and `id` among them, oldest first, from a place on."""
    for rows in chunks_in_time(store, columns, where, after):
        yield from rows


def chunks_in_time(
    store: Store,
    columns: Sequence[InstrumentedAttribute[Any]],
    where: Sequence[ColumnElement[bool]],
    after: Place | None = None,
    *,
    newest: bool = False,
    size: int = CHUNK,
) -> Iterator[Sequence[Any]]:
    """Yield the same in lists of at most `size`; with `newest` backwards, from `after` back."""
    at, name = RecordRow.at, RecordRow.id
    order = (at.desc(), name.desc()) if newest else (at, name)
    while True:
        query = select(*columns).where(*where).order_by(*order).limit(size)
        if after is not None:
            here, last = after
            further = or_(at < here, name < last) if newest else or_(at > here, name > last)
            query = query.where(at <= here if newest else at >= here, further)
        with store.session() as session:
            rows = session.execute(query).all()
        if rows:
            yield rows
        if len(rows) < size:
            return
        after = (rows[-1].at, rows[-1].id)
