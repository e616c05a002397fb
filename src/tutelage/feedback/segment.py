"""What production has taught so far: corrected answers by split, and which may be trained on.

A record's side was decided by hash when it arrived. A row is training material only if its side is
train *and* no record or frozen example with the same input is on another side.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from tutelage.core.example import SPLITS, Example, Message, Origin, SplitName, normalise
from tutelage.core.output import OutputFormat
from tutelage.feedback.signals import newest
from tutelage.store.artifacts import SplitRow
from tutelage.store.base import Store
from tutelage.store.records import RecordRow, SignalRow


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


def trainable(
    store: Store, output: OutputFormat | None = None, *, held_out: Iterable[str] = ()
) -> list[Corrected]:
    """Return the corrected rows that may be trained on and are in no dataset version yet.

    `held_out` are input texts of the frozen validation and test splits. A row whose input was
    also seen on the validation or test side of production is left out: a test row can never be
    trained on, not even through a twin.
    """
    items = corrected(store, output)
    known = _assigned(store)
    barred = {normalise(text) for text in held_out} | _held_out_inputs(store)
    return [
        item
        for item in items
        if item.split == "train"
        and item.example.id not in known
        and normalise(item.example.input_text) not in barred
    ]


def learning_summary(store: Store, output: OutputFormat | None = None) -> dict[str, Any]:
    """Return what `status` shows: records, edits by split and one sentence.

    `train` counts rows that are ready for training; twins of held-out rows are in `barred`.
    """
    items = corrected(store, output)
    known = _assigned(store)
    fresh = [item for item in items if item.example.id not in known]
    ready = trainable(store, output)
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


def _held_out_inputs(store: Store) -> set[str]:
    """Return the normalised inputs that production saw on the validation or test side."""
    with store.session() as session:
        rows = session.execute(select(RecordRow.messages).where(RecordRow.split != "train"))
        return {
            normalise("\n".join(m["content"] for m in messages if m["role"] != "system"))
            for (messages,) in rows
        }
