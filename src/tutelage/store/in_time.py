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
    at, name = RecordRow.at, RecordRow.id
    while True:
        query = select(*columns).where(*where).order_by(at, name).limit(CHUNK)
        if after is not None:
            here, last = after
            query = query.where(at >= here, or_(at > here, name > last))
        with store.session() as session:
            rows = session.execute(query).all()
        yield from rows
        if len(rows) < CHUNK:
            return
        after = (rows[-1].at, rows[-1].id)
