"""Twins of held-out rows among what was to be trained on, and their way out of training.

A twin is an equal input (normalised), one with nearly the same letters (data/dedup/near.py, where
numbers and negations count as letters), or, with an embedder, one of the same meaning. It moves
to the side of the row it resembles, from train to validation or test and from validation to test,
never back, and the reason is kept. Rows of dataset versions are not touched here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from tutelage.core.example import SPLITS, SplitName, normalise
from tutelage.store.base import Store, insert_into
from tutelage.store.feedback import SideMoveRow
from tutelage.store.records import RecordRow, SignalRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MEANING = 0.95  # cosine from which on two inputs mean the same (data/leakage.py)
_ROWS = 5_000  # fetched at a time
_AT_ONCE = 500  # moves a transaction, so that nobody waits for long
_SEEN = 4_096  # texts whose cosines are held at once
# (texts) -> unit vectors, float32, shape (N, D)
Embed = Callable[[Sequence[str]], "NDArray[np.float32]"]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A row that is not trained on: its side, and the id of its record or dataset row."""

    side: SplitName
    name: str


@dataclass(frozen=True, slots=True)
class Twin:
    """What a text is a twin of: `how` is exact, near or meaning; `similarity` is 0..1."""

    of: HeldOut
    how: str
    similarity: float

    @property
    def reason(self) -> str:
        """Why the text is not trained on, in words."""
        like = {"exact": "equal to", "near": "nearly equal to", "meaning": "means the same as"}
        return f"{like[self.how]} {self.of.name} on the {self.of.side} side"


@dataclass(frozen=True)
class Moved:
    """One record that changed sides."""

    record: str
    before: SplitName
    twin: Twin


def held_out_inputs(
    store: Store, frozen: Mapping[str, HeldOut] | None = None
) -> dict[str, HeldOut]:
    """Return what production saw on the validation and test sides, by normalised input.

    `frozen` adds the texts of a dataset version. Of equal inputs the most held-out one counts.
    """
    found: dict[str, HeldOut] = {}
    for text, held in (frozen or {}).items():
        _add(found, normalise(text), held)
    for name, side, text in _inputs(store, ("validation", "test")):
        _add(found, text, HeldOut(side, name))
    return found


def _add(found: dict[str, HeldOut], text: str, held: HeldOut) -> None:
    known = found.get(text)
    if text and (known is None or _rank(held.side) > _rank(known.side)):
        found[text] = held


def _rank(side: SplitName) -> int:
    return SPLITS.index(side)


def find_twins(
    texts: Sequence[str],
    held: Mapping[str, HeldOut],
    *,
    threshold: float = 80.0,
    embed: Embed | None = None,
) -> dict[int, Twin]:
    """Return the twin of every text that has one, by position.

    `threshold` is the share of letters that agree, in percent. Of several twins the most held-out
    one counts, of those the closest.
    """
    clean = [normalise(text) for text in texts]
    found = {i: Twin(held[t], "exact", 1.0) for i, t in enumerate(clean) if t in held}
    names = list(held)
    if not clean or not names:
        return found
    for i, j, share in _near(clean, names, threshold):
        _keep_closest(found, i, Twin(held[names[j]], "near", share))
    if embed is not None:
        for i, j, cosine in _by_meaning(embed([*clean, *names]), len(clean)):
            _keep_closest(found, i, Twin(held[names[j]], "meaning", cosine))
    return found


def _keep_closest(found: dict[int, Twin], index: int, twin: Twin) -> None:
    known = found.get(index)
    if known is None or (_rank(twin.of.side), twin.similarity) > (
        _rank(known.of.side), known.similarity
    ):  # fmt: skip
        found[index] = twin


def _near(
    texts: Sequence[str], names: Sequence[str], threshold: float
) -> Iterator[tuple[int, int, float]]:
    from rapidfuzz.distance import OSA

    from tutelage.data.dedup.near import NearDuplicates

    for i, j in NearDuplicates(threshold, guard=False).between(texts, names).tolist():
        if texts[i] != names[j]:
            yield i, j, OSA.normalized_similarity(texts[i], names[j])


def _by_meaning(vectors: NDArray[np.float32], count: int) -> Iterator[tuple[int, int, float]]:
    import numpy as np

    ours, theirs = vectors[:count], vectors[count:]
    for start in range(0, len(theirs), _SEEN):
        cosines = ours @ theirs[start : start + _SEEN].T  # (N, at most _SEEN)
        for i, j in np.argwhere(cosines >= MEANING).tolist():
            yield i, start + j, float(cosines[i, j])


def move_twins(
    store: Store,
    held: Mapping[str, HeldOut],
    *,
    threshold: float = 80.0,
    embed: Embed | None = None,
    everything: bool = False,
) -> list[Moved]:
    """Move the records that are twins of `held` to its side; return those that moved.

    Equal inputs are looked for among all records; near ones among those with a correction, which
    are about to be trained on, or among all with `everything`. Done twice, the second time moves
    nothing. Interrupted, it has done a part. What is a twin of a record that moved moves too.
    """
    grown = dict(held)
    moved = _near_moves(store, grown, threshold, embed, everything)
    for start in range(0, len(moved), _AT_ONCE):
        _move(store, moved[start : start + _AT_ONCE])
    for part in _exact_moves(store, grown):
        _move(store, part)
        moved += part
    return moved


def _near_moves(
    store: Store,
    grown: dict[str, HeldOut],
    threshold: float,
    embed: Embed | None,
    everything: bool,
) -> list[Moved]:
    """Return the moves of twins, and of their twins, whose inputs `grown` receives."""
    asked: dict[str, list[tuple[str, SplitName]]] = {}  # input -> records
    for name, side, text in _inputs(store, ("train", "validation"), edited=not everything):
        asked.setdefault(text, []).append((name, side))
    moved: dict[str, Moved] = {}
    fresh: dict[str, HeldOut] = grown
    while asked and fresh:
        texts = list(asked)
        twins = find_twins(texts, fresh, threshold=threshold, embed=embed)
        fresh = {}
        for index, twin in twins.items():
            side = twin.of.side
            low = [(n, s) for n, s in asked[texts[index]] if _rank(s) < _rank(side)]
            for name, before in low:
                moved[name] = Moved(name, before, twin)
            if low:
                fresh[texts[index]] = HeldOut(side, low[0][0])
                asked[texts[index]] = [(name, side) for name, _ in asked[texts[index]]]
        for text, own in fresh.items():
            _add(grown, text, own)
    return list(moved.values())


def _exact_moves(store: Store, held: Mapping[str, HeldOut]) -> Iterator[list[Moved]]:
    """Yield the moves of records with an input of `held`, a transaction's worth at a time."""
    last = ""
    while True:
        found: list[Moved] = []
        for name, side, text in _inputs(store, ("train", "validation"), after=last):
            last = name
            own = held.get(text)
            if own is not None and _rank(own.side) > _rank(side):
                found.append(Moved(name, side, Twin(own, "exact", 1.0)))
                if len(found) == _AT_ONCE:
                    break
        if found:
            yield found
        if len(found) < _AT_ONCE:
            return


def _move(store: Store, moved: Sequence[Moved]) -> None:
    table: Any = SideMoveRow.__table__
    add = insert_into(store.engine, table)
    add = add.on_conflict_do_update(
        index_elements=[table.c.record],
        set_={name: add.excluded[name] for name in ("after", "how", "similarity", "twin", "at")},
    )  # `before` stays: it is the side of the arrival
    rows = [
        {
            "record": one.record, "before": one.before, "after": one.twin.of.side,
            "how": one.twin.how, "similarity": one.twin.similarity, "twin": one.twin.of.name,
        }
        for one in moved
    ]  # fmt: skip
    with store.begin() as session:
        session.execute(add, rows)
        for side in {one.twin.of.side for one in moved}:
            names = [one.record for one in moved if one.twin.of.side == side]
            session.execute(update(RecordRow).where(RecordRow.id.in_(names)).values(split=side))


def moves(store: Store, limit: int | None = None) -> list[SideMoveRow]:
    """Return the records that were moved out of training, the newest first."""
    with store.session() as session:
        query = select(SideMoveRow).order_by(SideMoveRow.at.desc(), SideMoveRow.record)
        return list(session.scalars(query.limit(limit)))


def moves_so_far(store: Store) -> tuple[int, datetime | None]:
    """Return how many records were moved, and when the last one was."""
    with store.session() as session:
        query = select(func.count(), func.max(SideMoveRow.at)).select_from(SideMoveRow)
        count, newest = session.execute(query).one()
        return count, newest


def any_records(store: Store) -> bool:
    """Return whether production left any record."""
    with store.session() as session:
        return session.scalar(select(RecordRow.id).limit(1)) is not None


def _inputs(
    store: Store, sides: Iterable[SplitName], *, edited: bool = False, after: str = ""
) -> Iterator[tuple[str, SplitName, str]]:
    """Yield id, side and normalised input of the records on `sides` whose texts were kept.

    With `edited` those alone that have a correction; ids rise, from behind `after` on.
    """
    query = select(RecordRow.id, RecordRow.split, RecordRow.messages).order_by(RecordRow.id)
    query = query.where(RecordRow.split.in_(list(sides)), RecordRow.id > after)
    if edited:
        corrected = select(SignalRow.record).where(SignalRow.kind == "edit")
        query = query.where(RecordRow.id.in_(corrected))
    with store.session() as session:
        for name, side, messages in session.execute(query.execution_options(yield_per=_ROWS)):
            text = normalise("\n".join(m["content"] for m in messages if m["role"] != "system"))
            if text:
                yield name, side, text
