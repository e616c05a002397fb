"""Items in the store, and the rows of the dataset they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core.errors import DataError
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.data.annotation.items import Item, item_id
from tutelage.data.version import DatasetVersion, load_version
from tutelage.store.annotations import ItemRow
from tutelage.workflows.context import Context, last_output
from tutelage.workflows.data.privacy import redacted_rows


def require_version(ctx: Context) -> DatasetVersion:
    """Return the newest dataset version; raise DataError if there is none."""
    version = newest_version(ctx)
    if version is None:
        raise DataError(
            "there is no dataset version yet",
            where=str(ctx.workspace.root),
            fix="Run `tutelage data split` first, or give texts out with --file",
        )
    return version


def newest_version(ctx: Context) -> DatasetVersion | None:
    """Return the newest dataset version, or None."""
    artifact = last_output(ctx, "curate")
    if artifact is None or not ctx.path_of(artifact).exists():
        return None
    return load_version(ctx.path_of(artifact))


def known_rows(ctx: Context, items: Iterable[Item]) -> list[Item]:
    """Return the items as they may be kept, those that are a row of the dataset with id and side.

    Where data.privacy.mode is redact, identifiers are pseudonyms, as they are in the dataset.
    """
    items = _without_identifiers(ctx, list(items))
    version = newest_version(ctx)
    if version is None:
        return items
    rows: dict[str, tuple[Example, SplitName]] = {}
    for split in SPLITS:
        for row in version.rows(split):
            rows.setdefault(item_id(row.context), (row, split))
    found = []
    for item in items:
        if item.id in rows:
            row, side = rows[item.id]
            item = replace(item, example_id=row.id, split=side, label=row.label, answer=row.answer)
        found.append(item)
    return found


def _without_identifiers(ctx: Context, items: list[Item]) -> list[Item]:
    if ctx.config.data.privacy.mode != "redact":
        return items
    rows = redacted_rows(ctx, [item.example for item in items])
    return [
        replace(item, example=row, id=item_id(row.context))
        for item, row in zip(items, rows, strict=True)
    ]


def keep_items(session: Session, items: Sequence[Item]) -> int:
    """Write the items that are not there yet; return how many."""
    ids = [item.id for item in items]
    known: set[str] = set()
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        known |= set(session.scalars(select(ItemRow.id).where(ItemRow.id.in_(part))))
    new = [item for item in {item.id: item for item in items}.values() if item.id not in known]
    session.add_all(
        ItemRow(
            id=item.id,
            example=item.example.model_dump(mode="json", exclude_defaults=True),
            source=item.source,
            example_id=item.example_id,
            split=item.split,
            label=item.label,
            answer=item.answer,
        )
        for item in new
    )
    session.flush()
    return len(new)


def item_of(row: ItemRow) -> Item:
    """Return a stored item."""
    return Item(
        id=row.id,
        example=Example.model_validate(row.example),
        source=row.source,
        example_id=row.example_id,
        split=row.split,  # type: ignore[arg-type]
        label=row.label,
        answer=row.answer,
    )


def find_item(session: Session, name: str) -> ItemRow:
    """Return an item by its id or the start of it (6 digits or more); DataError if none or many."""
    row = session.get(ItemRow, name)
    if row is not None:
        return row
    found = []
    if len(name) >= 6:
        found = list(session.scalars(select(ItemRow).where(ItemRow.id.startswith(name)).limit(2)))
    if len(found) != 1:
        what = "several items start with" if found else "there is no item"
        raise DataError(
            f"{what} {name!r}", fix="`tutelage data label disputes` and `todo` list the items"
        )
    return found[0]
