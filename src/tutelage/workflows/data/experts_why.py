"""Why an item is in the queue, in sentences that a person who labels it can use.

They tell what chose the item and never what anybody answered.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.data.annotation.items import Item
from tutelage.store.annotations import AssignmentRow, BatchRow
from tutelage.store.mining import MinedRecordRow, MineRow

_DRAWN = {
    "random": "Drawn at random from the dataset.",
    "active": "Chosen because its label would teach the model most.",
    "file": "From a file of texts that was given out.",
    "production": "A request that clients sent to the running model.",
    "import": "Brought in from another labelling tool.",
    "disputed": "People did not agree about it, so it is asked again.",
    "mined": "Found in production as worth a label.",
}


def why_here(session: Session, item: Item, slot: AssignmentRow | None) -> list[str]:
    """Return the reasons why a slot's item is asked, the most telling first."""
    if slot is None:
        return ["Opened by name: it is in nobody's queue."]
    batch = session.get_one(BatchRow, slot.batch)
    found = _mined(session, item.id, batch) if batch.source == "mined" else []
    if slot.why:
        found.append(_sentence(slot.why))
    found.append(_drawn(batch, item))
    if batch.overlap > 1:
        found.append(f"{batch.overlap} people answer it, which shows how far they agree.")
    return list(dict.fromkeys(found))


def _mined(session: Session, item: str, batch: BatchRow) -> list[str]:
    row = session.scalars(
        select(MinedRecordRow)
        .join(MineRow, MineRow.id == MinedRecordRow.run)
        .where(MineRow.batch == batch.id, MinedRecordRow.item == item)
    ).first()
    if row is None:
        return []
    times = [f"Asked {row.times:,} times."] if row.times > 1 else []
    return [_sentence(one["words"]) for one in row.reasons] + times


def _drawn(batch: BatchRow, item: Item) -> str:
    place = item.example.origin.source
    if batch.source == "file" and place:
        return f"From the file {place.rpartition(':')[0] or place} that was given out."
    return _DRAWN.get(batch.source, "Given out to be labelled.")


def _sentence(words: str) -> str:
    plain = words.strip()
    return plain[:1].upper() + plain[1:] + ("" if plain.endswith((".", "?", "!")) else ".")
