"""What production has taught so far: corrected answers by split, and which may be trained on.

A record's side was decided by hash when it arrived. A row is training material only if its side is
train *and* it is no twin of a record or frozen example on another side (segment_twins.py).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import func, select

from tutelage.core.errors import DataError
from tutelage.core.example import SPLITS, Example, Message, Origin, SplitName, normalise
from tutelage.core.output import OutputFormat
from tutelage.data.annotation.export import ANNOTATED
from tutelage.feedback.segment_twins import HeldOut, Twin, find_twins, held_out_inputs
from tutelage.feedback.signals import newest
from tutelage.store.artifacts import SplitRow
from tutelage.store.base import Store
from tutelage.store.feedback import SideMoveRow
from tutelage.store.records import RecordRow, SignalRow

_AT_ONCE = 500  # rows in one question to the store


@dataclass(frozen=True)
class Corrected:
    """A production request with the answer an expert gave it."""

    example: Example
    split: SplitName
    record: str


def corrected(store: Store, output: OutputFormat | None = None) -> list[Corrected]:
    """Return every record that has an edit, once an input and answer, oldest record first.

    Of equal rows on several sides the most held-out one counts (test before validation before
    train). `output` reads the label from the answer. A record that arrives after its edit counts
    as soon as both are there; one whose texts the log did not keep never does.
    """
    with store.session() as session:
        edits = newest(list(session.scalars(select(SignalRow).where(SignalRow.kind == "edit"))))
        rows = session.scalars(
            select(RecordRow)
            .where(RecordRow.id.in_(select(SignalRow.record).where(SignalRow.kind == "edit")))
            .order_by(RecordRow.at, RecordRow.id)
        )
        found = [_corrected(row, edits[row.id, "edit"], output) for row in rows if row.messages]
    unique: dict[str, Corrected] = {}
    for item in found:
        kept = unique.get(item.example.id)
        if kept is None or SPLITS.index(item.split) > SPLITS.index(kept.split):
            unique[item.example.id] = item
    return list(unique.values())


def said(store: Store, output: OutputFormat | None = None) -> list[Corrected]:
    """Return what each author last said of every record that has edits, oldest record first."""
    with store.session() as session:
        edits: dict[str, dict[str | None, SignalRow]] = {}
        query = select(SignalRow).where(SignalRow.kind == "edit")
        for edit in session.scalars(query.order_by(SignalRow.at, SignalRow.key)):
            by = edits.setdefault(edit.record, {})
            by.pop(edit.author, None)
            by[edit.author] = edit
        rows = session.scalars(
            select(RecordRow)
            .where(RecordRow.id.in_(select(SignalRow.record).where(SignalRow.kind == "edit")))
            .order_by(RecordRow.at, RecordRow.id)
        )
        return [
            _corrected(row, edit, output)
            for row in rows
            if row.messages
            for edit in edits[row.id].values()
        ]


def trainable(
    store: Store,
    output: OutputFormat | None = None,
    *,
    held_out: Iterable[str] = (),
    threshold: float = 80.0,
) -> list[Corrected]:
    """Return the corrected rows that may be trained on and are in no dataset version yet.

    `held_out` are input texts of the frozen validation and test splits. A row that is a twin of
    one of them, or of what production saw on the validation or test side, is left out: equal, or
    with at least `threshold` percent of its letters in common.
    """
    frozen = {text: HeldOut("test", "a row of the dataset") for text in held_out}
    held = held_out_inputs(store, frozen)
    ready = _ready(corrected(store, output), _assigned(store), held)
    twins = find_twins([item.example.input_text for item in ready], held, threshold=threshold)
    return [item for index, item in enumerate(ready) if index not in twins]


def _ready(items: list[Corrected], known: set[str], held: Container[str]) -> list[Corrected]:
    """Return the items on the train side that are new and whose input is not held out."""
    return [
        item
        for item in items
        if item.split == "train"
        and item.example.id not in known
        and normalise(item.example.input_text) not in held
    ]


def require_trainable(store: Store, rows: Iterable[Example], where: str | None = None) -> None:
    """Raise DataError if one of `rows`, which are about to be trained on, is held out.

    Held out are rows whose side was frozen as validation or test, and production rows whose
    record is on one of these sides, from the start or since it was found to be a twin.
    """
    for row, why in held_out_rows(store, rows):
        raise DataError(
            f"row {row.origin.source or row.id} can't be trained on: {why}",
            where=where,
            fix="Make a new version without it: `tutelage data split`",
        )


def held_out_rows(store: Store, rows: Iterable[Example]) -> Iterator[tuple[Example, str]]:
    """Yield those of `rows` that may not be trained on, each with the reason in words."""
    rest = iter(rows)
    while part := list(islice(rest, _AT_ONCE)):
        sides, records, moved = _sides(store, part)
        for row in part:
            if sides.get(row.id, "train") != "train":
                yield row, f"it is a {sides[row.id]} row"
                continue
            for name in records_of(row):
                if records.get(name, "train") != "train":
                    yield row, moved.get(name) or f"its record arrived on the {records[name]} side"
                    break


def _sides(
    store: Store, rows: list[Example]
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Return the frozen sides by row, and the sides and the reasons of moves by record."""
    names = [name for row in rows for name in records_of(row)]
    frozen = select(SplitRow.example_id, SplitRow.split)
    with store.session() as session:
        sides = session.execute(frozen.where(SplitRow.example_id.in_([row.id for row in rows])))
        records = session.execute(
            select(RecordRow.id, RecordRow.split).where(RecordRow.id.in_(names))
        )
        moved = session.scalars(select(SideMoveRow).where(SideMoveRow.record.in_(names)))
        return (
            dict(sides.tuples().all()),
            dict(records.tuples().all()),
            {row.record: _told(row) for row in moved},
        )


def records_of(row: Example) -> list[str]:
    """Return the records that a row may come from: names of others are among them.

    A row from the log names its record as its source, one of a file of edits in the field
    `record`, and one that experts answered in what was told of their answer.
    """
    told = row.meta.get(ANNOTATED)
    names = [str(told.get("source") or "")] if isinstance(told, dict) else []
    if row.origin.kind == "production":
        names += [row.origin.source or "", str(row.meta.get("record", ""))]
    return [name for name in names if name]


def _told(row: SideMoveRow) -> str:
    twin = Twin(HeldOut(row.after, row.twin), row.how, row.similarity)  # type: ignore[arg-type]
    return f"{twin.reason} ({row.similarity:.0%}), found on {row.at:%Y-%m-%d}"


def learning_summary(store: Store, output: OutputFormat | None = None) -> dict[str, Any]:
    """Return what `status` shows: records, edits by split and one sentence.

    `train` counts rows that are ready for training; equal inputs of held-out rows are in `barred`.
    """
    items = corrected(store, output)
    known = _assigned(store)
    fresh = [item for item in items if item.example.id not in known]
    ready = _ready(items, known, held_out_inputs(store))
    with store.session() as session:
        records = session.scalar(select(func.count()).select_from(RecordRow)) or 0
        rated = session.scalar(
            select(func.count(func.distinct(SignalRow.record))).where(SignalRow.kind == "rating")
        )
    sides = {name: sum(item.split == name for item in fresh) for name in ("validation", "test")}
    barred = sum(item.split == "train" for item in fresh) - len(ready)
    return {
        "records": records,
        "rated": rated or 0,
        "edits": len(fresh),
        "train": len(ready),
        **sides,
        "barred": barred,
        "sentence": _sentence(records, len(fresh), len(ready), sides, barred),
    }


def _sentence(records: int, edits: int, train: int, sides: dict[str, int], barred: int) -> str:
    if not records:
        return "no production records yet"
    text = f"{_count(records, 'record')}, {_count(edits, 'corrected answer')}"
    if edits:
        text += f": {train} train, {sides['validation']} validation, {sides['test']} test"
    if barred:
        text += f" ({barred} kept out of training: the same input is held out)"
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _corrected(row: RecordRow, edit: SignalRow, output: OutputFormat | None) -> Corrected:
    answer = str(edit.value["value"])
    label = output.parse(answer).label if output and (output.field or output.labels) else None
    turns = tuple(Message(role=m["role"], content=m["content"]) for m in row.messages)
    example = Example(
        messages=(*turns, Message(role="assistant", content=answer)),
        label=label,
        group=row.group_key,
        time=row.at.isoformat(),
        origin=Origin(kind="production", source=row.id, author=edit.author),
    )
    split: SplitName = row.split  # type: ignore[assignment]
    return Corrected(example, split, row.id)


def _assigned(store: Store) -> set[str]:
    with store.session() as session:
        return set(session.scalars(select(SplitRow.example_id)))
