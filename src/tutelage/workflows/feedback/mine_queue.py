"""Mined rows in the label queue, and the looks that were kept: show, list, give one out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from tutelage.core.errors import DataError
from tutelage.core.example import SPLITS, SplitName
from tutelage.data.annotation.items import Item
from tutelage.feedback.mining.mined import Mined, MinedRow, Reason
from tutelage.feedback.mining.scan import asked_text
from tutelage.store.annotations import AssignmentRow
from tutelage.store.mining import MinedRecordRow, MineRow
from tutelage.store.records import RecordRow
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_items import Order, give, production_item
from tutelage.workflows.data.experts_people import require
from tutelage.workflows.data.experts_rows import known_rows
from tutelage.workflows.data.pool import given_items
from tutelage.workflows.feedback.mine import clusters_of, mine

_AT_ONCE = 500


def give_out(
    ctx: Context,
    run: str | None,
    people: tuple[str, ...],
    *,
    overlap: int = 1,
    shared: bool = False,
) -> dict[str, Any]:
    """Give the rows of a look (unset: the newest) to people, in their rank; return the batch.

    Returns what `tutelage data label assign` does, with `run` and `gone` (records that were
    deleted since). Raises DataError if a person is unknown, or every row was given out before.
    """
    order = Order(people=people, overlap=overlap, source="mined", shared=shared)
    check_people(ctx, people)
    with ctx.store.session() as session:
        look = _find(session, run)
        wanted = list(
            session.scalars(
                select(MinedRecordRow)
                .where(MinedRecordRow.run == look.id)
                .order_by(MinedRecordRow.rank)
            )
        )
    items, gone = _items(ctx, wanted)
    before = given_items(ctx)
    fresh = [item for item in items if item.example_id is None and item.id not in before]
    batch = give(ctx, fresh, order) if fresh else None
    if batch is None:
        raise DataError(
            f"all rows of the look {look.id} were given out before, or are known by now",
            fix="Run `tutelage mine run` for new ones",
        )
    with ctx.store.begin() as session:
        session.get_one(MineRow, look.id).batch = batch["batch"]
    return {**batch, "run": look.id, "gone": gone, "given_before": len(items) - len(fresh)}


def mine_and_give(
    ctx: Context, people: Sequence[str], count: int, *, now: datetime | None = None
) -> dict[str, Any]:
    """Look at production and give what is most wanted to people, as one batch for whoever is free.

    Returns {batch, items, why, source, run}; `why` has the first reason of each row. Raises
    DataError if there is nothing new to ask about.
    """
    found = mine(ctx, budget=count, now=now)
    given = give_out(ctx, found.run, tuple(people), shared=len(people) > 1)
    why = [row.reasons[0].words for row in found.rows if row.reasons]
    return {"batch": given["batch"], "items": given["items"], "why": why,
            "source": given["source"], "run": found.run}  # fmt: skip


def check_people(ctx: Context, people: tuple[str, ...]) -> None:
    """Raise DataError if one of the people is not known, or has left."""
    with ctx.store.session() as session:
        for name in people:
            require(session, name)


def looks(ctx: Context) -> list[dict[str, Any]]:
    """Return every look that was kept, newest first, with what became of its rows."""
    with ctx.store.session() as session:
        rows = list(session.scalars(select(MineRow).order_by(MineRow.at.desc(), MineRow.id)))
        counts = dict(
            session.execute(select(MinedRecordRow.run, func.count()).group_by(MinedRecordRow.run))
            .tuples()
            .all()
        )
        answered = dict(
            session.execute(
                select(AssignmentRow.batch, func.count())
                .where(AssignmentRow.state == "done")
                .group_by(AssignmentRow.batch)
            )
            .tuples()
            .all()
        )
    return [
        {
            "run": row.id,
            "at": row.at.isoformat(timespec="seconds"),
            "since": row.since.isoformat(timespec="seconds") if row.since else None,
            "until": row.until.isoformat(timespec="seconds"),
            "records": row.figures.get("records", 0),
            "rows": counts.get(row.id, 0),
            "batch": row.batch,
            "answered": answered.get(row.batch or "", 0),
        }
        for row in rows
    ]


def show(ctx: Context, run: str | None = None) -> Mined:
    """Return a kept look (unset: the newest). A record that was deleted since has no text.

    Raises DataError if there is none.
    """
    with ctx.store.session() as session:
        look = _find(session, run)
        kept = list(
            session.scalars(
                select(MinedRecordRow)
                .where(MinedRecordRow.run == look.id)
                .order_by(MinedRecordRow.rank)
            )
        )
        names = {row.id: row.name for row in session.scalars(select(ReleaseRow))}
    records = _records(ctx, [row.record for row in kept])
    figures = look.figures
    return Mined(
        run=look.id,
        rows=tuple(_row(row, records.get(row.record), names) for row in kept),
        clusters=clusters_of(figures),
        records=figures.get("records", 0),
        texts=figures.get("texts", 0),
        wanted=figures.get("wanted", 0),
        left_out=figures.get("left_out", {}),
        known=figures.get("known", 0),
        since=look.since.isoformat() if look.since else None,
        until=look.until.isoformat(),
        batch=look.batch,
    )


def _row(row: MinedRecordRow, record: RecordRow | None, names: dict[str, str]) -> MinedRow:
    side: SplitName = row.split  # type: ignore[assignment]
    return MinedRow(
        record=row.record,
        rank=row.rank,
        score=row.score,
        reasons=tuple(Reason(one["kind"], one["strength"], one["words"]) for one in row.reasons),
        cluster=row.cluster,
        split=side,
        text=(asked_text(record.messages) or "") if record is not None else "",
        answer=record.response if record is not None else "",
        release=names.get(record.release, record.release) if record is not None else "",
        times=row.times,
        item=row.item,
    )


def _find(session: Any, run: str | None) -> MineRow:
    if run is None:
        row: MineRow | None = session.scalars(
            select(MineRow).order_by(MineRow.at.desc(), MineRow.id.desc()).limit(1)
        ).first()
        if row is None:
            raise DataError("nothing was mined yet", fix="Run `tutelage mine run`")
        return row
    row = session.get(MineRow, run)
    if row is None:
        raise DataError(f"there is no look {run!r}", fix="`tutelage mine list` lists them")
    return row


def _records(ctx: Context, ids: list[str]) -> dict[str, RecordRow]:
    found: dict[str, RecordRow] = {}
    for start in range(0, len(ids), _AT_ONCE):
        with ctx.store.session() as session:
            query = select(RecordRow).where(RecordRow.id.in_(ids[start : start + _AT_ONCE]))
            found |= {row.id: row for row in session.scalars(query)}
    return found


def _items(ctx: Context, wanted: list[MinedRecordRow]) -> tuple[list[Item], int]:
    """Return the items in their rank with the side they were mined on, and how many are gone."""
    records = _records(ctx, [row.record for row in wanted])
    items = []
    for row in wanted:
        record = records.get(row.record)
        item = production_item(ctx, record) if record is not None else None
        if item is not None:
            sides = (item.split or "train", row.split)
            side: SplitName = max(sides, key=lambda name: SPLITS.index(name))  # type: ignore[arg-type]
            items.append(replace(item, split=side))
    return known_rows(ctx, items), len(wanted) - len(items)
