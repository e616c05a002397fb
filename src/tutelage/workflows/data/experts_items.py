"""Which items are given to whom: rows of the dataset, texts of a file, production, imports.

Everything of a batch is written in one transaction: it is there whole or not at all.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core.errors import DataError
from tutelage.core.example import SPLITS, Example, Message, Origin, SplitName
from tutelage.data.annotation.drafts import read_draft
from tutelage.data.annotation.items import Item, from_example, item_id, read_items
from tutelage.data.annotation.plan import Slot, check, plan, plan_shared
from tutelage.data.findings import Finding, summarise
from tutelage.store.annotations import (
    AnnotationRow,
    AssignmentRow,
    BatchRow,
    DraftRow,
    ItemRow,
)
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.check import columns_of
from tutelage.workflows.data.experts_people import require
from tutelage.workflows.data.experts_rows import (
    item_of,
    keep_items,
    known_rows,
    require_version,
)

Source = Literal["random", "active", "file", "production", "import", "disputed", "mined"]
SOURCES: tuple[Source, ...] = ("random", "active", "file", "production", "import", "disputed")


@dataclass(frozen=True)
class Order:
    """What is to be labelled by whom.

    `count` items (all by default) of `source`, `overlap` answers each. `active` chooses what is
    worth most among the texts of `file`, or those of production and imports. `shared`: whoever of
    `people` is free takes the next one. `again`: items that were given out before may come back.
    """

    people: tuple[str, ...]
    overlap: int = 1
    count: int | None = None
    source: Source = "random"
    file: Path | None = None
    split: SplitName | None = None
    seed: int = 7
    shared: bool = False
    again: bool = False


def assign(ctx: Context, order: Order) -> dict[str, Any]:
    """Give items out; return the batch: batch, items, answers, people, left_over, findings.

    Raises DataError if a person is unknown, or if there is nothing (new) to give out.
    """
    check(order.people, order.overlap)
    if order.source == "mined":
        raise DataError("mined rows are not drawn here", fix="Use `tutelage mine assign`")
    with ctx.store.session() as session:
        for name in order.people:
            require(session, name)
    findings: list[Finding] = []
    pool = pool_of(ctx, order, findings)
    with ctx.store.session() as session:
        taken = _taken(session)
    fresh = [one for one in pool if order.again or order.source == "disputed" or
             not taken.get(one.id)]  # fmt: skip
    chosen, why = _choose(ctx, fresh, order)
    given = give(ctx, chosen, order, why)
    if given is None:
        raise _nothing(order, len(pool), findings)
    return {
        **given,
        "left_over": len(fresh) - len(chosen),
        "given_before": len(pool) - len(fresh),
        "findings": summarise(findings),
    }


def give(
    ctx: Context, items: Sequence[Item], order: Order, why: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Give these items out in their order, as one batch; return it, or None if nobody lacks them.

    `why` says in words why each was chosen. An item that all of the people have had is left out.
    """
    with ctx.store.begin() as session:
        slots = _slots(items, order, _taken(session))
        if not slots:
            return None
        keep_items(session, items)
        drafts = _keep_production_drafts(ctx, session, items)
        batch = _write(
            session, order, slots, dict(zip((one.id for one in items), why, strict=False))
        )
    given = Counter(slot.annotator for slot in slots if slot.annotator is not None)
    return {
        "batch": batch,
        "source": order.source,
        "why": list(why),
        "drafts": drafts,
        "items": len({slot.item for slot in slots}),
        "answers": len(slots),
        "overlap": order.overlap,
        "shared": order.shared,
        "people": {name: given.get(name, 0) for name in order.people},
    }


def pool_of(ctx: Context, order: Order, findings: list[Finding]) -> list[Item]:
    """Return the items an order can choose from, the first first."""
    if order.source == "file" or order.file is not None:
        return _from_file(ctx, order, findings)
    if order.source == "production":
        return _shuffled(_from_production(ctx, order.split), order.seed)
    if order.source == "import":
        return _from_imports(ctx)
    if order.source == "active":
        return [*_from_imports(ctx), *_from_production(ctx, order.split)]
    if order.source == "disputed":
        from tutelage.data.annotation.votes import disputes
        from tutelage.workflows.data.experts_review import load_votes

        return [one.voted.item for one in disputes(load_votes(ctx))]
    version = require_version(ctx)
    pool = [
        from_example(row, "dataset", split)
        for split in SPLITS
        if order.split in (None, split)
        for row in version.rows(split)
    ]
    return _shuffled(list({item.id: item for item in pool}.values()), order.seed)


def _choose(ctx: Context, fresh: list[Item], order: Order) -> tuple[list[Item], list[str]]:
    """Return the items to give out, and why, in words, if they were chosen for a reason."""
    if order.source != "active" or not fresh:
        return (fresh[: order.count] if order.count is not None else fresh), []
    from tutelage.workflows.data.experts_active import most_wanted

    return most_wanted(ctx, fresh, order.count or len(fresh), order.seed)


def _from_file(ctx: Context, order: Order, findings: list[Finding]) -> list[Item]:
    if order.file is None:
        raise DataError("no file is named", fix="Say which one: --file texts.txt")
    read = read_items(order.file, columns_of(ctx))
    findings += read.findings
    return known_rows(ctx, read.items)


def _from_production(ctx: Context, split: SplitName | None) -> list[Item]:
    """Return the requests clients sent, once each; the answer they got stands beside them."""
    found: dict[str, Item] = {}
    with ctx.store.session() as session:
        rows = session.scalars(
            select(RecordRow)
            .where(RecordRow.status == 200, RecordRow.arm != "shadow")
            .order_by(RecordRow.at, RecordRow.id)
        )
        for row in rows:
            item = production_item(ctx, row)
            if item is None or split not in (None, item.split):
                continue
            before = found.get(item.id)
            if before is None or _held_out(item) > _held_out(before):
                found[item.id] = item
    return known_rows(ctx, found.values())


def production_item(ctx: Context, row: RecordRow) -> Item | None:
    """Return what a record asks as an item, or None if it does not end with a question.

    The answer that clients got stands beside it; identifiers are as the record has them.
    """
    turns = tuple(Message(role=m["role"], content=m["content"]) for m in row.messages)
    if not turns or turns[-1].role != "user":
        return None
    turns = without_prompt(turns, ctx.config.prompt)
    example = Example(
        messages=turns,
        group=row.group_key,
        time=row.at.isoformat(),
        meta={"release": row.release},
        origin=Origin(kind="production", source=row.id),
    )
    side: SplitName = row.split  # type: ignore[assignment]
    return Item(item_id(turns), example, "production", split=side, answer=row.response)


def _held_out(item: Item) -> int:
    return SPLITS.index(item.split or "train")


def _from_imports(ctx: Context) -> list[Item]:
    with ctx.store.session() as session:
        rows = session.scalars(
            select(ItemRow).where(ItemRow.source == "import").order_by(ItemRow.added_at, ItemRow.id)
        )
        return [item_of(row) for row in rows]


def without_prompt(turns: tuple[Message, ...], prompt: str) -> tuple[Message, ...]:
    """Return the turns without the project's own prompt, which is put in front of every row."""
    first = turns[0]
    own = first.role == "system" and first.content.strip() == prompt.strip()
    return turns[1:] if own and len(turns) > 1 else turns


def _shuffled(pool: list[Item], seed: int) -> list[Item]:
    ordered = sorted(pool, key=lambda item: item.id)
    random.Random(seed).shuffle(ordered)
    return ordered


def _taken(session: Session) -> dict[str, set[str]]:
    """Return who has or had each item; an open slot of nobody counts as its batch."""
    found: dict[str, set[str]] = defaultdict(set)
    for item, name, batch in session.execute(
        select(AssignmentRow.item, AssignmentRow.annotator, AssignmentRow.batch)
    ):
        found[item].add(name if name is not None else f"batch:{batch}")
    said = select(AnnotationRow.item, AnnotationRow.annotator)
    for item, name in session.execute(said.where(AnnotationRow.undone_at.is_(None))):
        found[item].add(name)
    return found


def _slots(items: Sequence[Item], order: Order, taken: dict[str, set[str]]) -> list[Slot]:
    ids = [item.id for item in items]
    if order.shared:
        return plan_shared(ids, order.people, order.overlap)
    return plan(ids, order.people, order.overlap, seed=order.seed, taken=taken)


def _write(session: Session, order: Order, slots: Sequence[Slot], why: Mapping[str, str]) -> str:
    batch = secrets.token_hex(6)
    session.add(
        BatchRow(
            id=batch,
            people=list(order.people),
            overlap=order.overlap,
            source=order.source,
            seed=order.seed,
        )
    )
    session.flush()
    session.add_all(
        AssignmentRow(
            batch=batch,
            item=slot.item,
            annotator=slot.annotator,
            shared=slot.annotator is None,
            place=slot.place,
            why=why.get(slot.item, ""),
            state="open",
        )
        for slot in slots
    )
    return batch


def _nothing(order: Order, pool: int, findings: Sequence[Finding]) -> DataError:
    where = order.file.name if order.file is not None else None
    if pool:
        return DataError(
            f"all {pool:,} items were given out before",
            where=where,
            fix="Name other items, or add --again to have them answered by other people too",
        )
    if findings:
        first = findings[0]
        return DataError(
            f"there is nothing to label; first: {first.detail}",
            where=first.where,
            fix=first.kind.fix,
        )
    return DataError(f"there is nothing to label in {order.source!r}", where=where,
                     fix="Choose another --source")  # fmt: skip


def _keep_production_drafts(ctx: Context, session: Session, items: Sequence[Item]) -> int:
    """Keep the answers production gave as drafts, except on the test side; return how many."""
    output = ctx.config.output.format()
    made = 0
    for item in items:
        if item.source != "production" or not item.answer or item.split == "test":
            continue
        model = f"release:{item.example.meta.get('release', '')}"[:160]
        query = select(DraftRow.id).where(DraftRow.item == item.id, DraftRow.model == model)
        if session.scalars(query).first() is None:
            draft = read_draft(item.answer, output)
            session.add(
                DraftRow(
                    item=item.id,
                    text=draft.text,
                    label=draft.label,
                    problem=draft.problem,
                    model=model,
                    prompt="production",
                )
            )
            made += 1
    return made
