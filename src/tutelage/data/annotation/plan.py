"""Who gets which item: each item to several people, nobody twice, everybody the same amount.

Pure and seeded; leases and answers are kept elsewhere.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tutelage.core.errors import DataError


@dataclass(frozen=True)
class Slot:
    """One wanted answer: the item, who gives it (None: anyone), and the item's place."""

    item: str
    annotator: str | None
    place: int


def plan(
    items: Sequence[str],
    people: Sequence[str],
    overlap: int,
    *,
    seed: int,
    taken: Mapping[str, set[str]] | None = None,
) -> list[Slot]:
    """Return the slots of `items` in their order, `overlap` different people each.

    People's loads differ by at most one where nobody has an item already, and every two people
    share about the same number of items. `taken`: who has an item from before, by item; they
    are not asked again, and an item with too few people left gets the slots it can have.
    """
    check(people, overlap)
    rng = random.Random(seed)
    load = Counter(dict.fromkeys(people, 0))
    together: Counter[frozenset[str]] = Counter()
    slots = []
    for place, item in enumerate(items):
        before = (taken or {}).get(item, set())
        free = [name for name in people if name not in before]
        rng.shuffle(free)
        chosen: list[str] = []
        for _ in range(min(overlap, len(free))):
            best = min(
                (name for name in free if name not in chosen),
                key=lambda n: (load[n], sum(together[frozenset((n, c))] for c in chosen)),
            )
            together.update(frozenset((best, other)) for other in chosen)
            chosen.append(best)
            load[best] += 1
        slots += [Slot(item, name, place) for name in chosen]
    return slots


def plan_shared(items: Sequence[str], people: Sequence[str], overlap: int) -> list[Slot]:
    """Return `overlap` slots an item that whoever of `people` is free may take."""
    check(people, overlap)
    return [Slot(item, None, place) for place, item in enumerate(items) for _ in range(overlap)]


def check(people: Sequence[str], overlap: int) -> None:
    """Raise DataError if so many answers can't come from so many people."""
    double = next((name for name, count in Counter(people).items() if count > 1), None)
    if double is not None:
        raise DataError(f"{double!r} is named twice", fix="Name each person once")
    if not people:
        raise DataError("nobody is named", fix="Say who labels: --to anna,ben")
    if overlap < 1 or overlap > len(people):
        several = "1 person" if len(people) == 1 else f"{len(people)} people"
        raise DataError(
            f"{overlap} answers an item can't come from {several}",
            fix="Lower --overlap, or name more people with --to",
        )
