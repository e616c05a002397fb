"""Augmented rows meet a new version's split: only those whose parents are trained on get in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tutelage.core.example import Example, SplitName, normalise
from tutelage.data.augment.sift import Sifted, dropped, far_from_held_out


def join(rows: Sequence[Example], sides: Mapping[SplitName, Sequence[Example]]) -> Sifted:
    """Return the augmented rows that may be trained on now, and why the others may not.

    A row whose parent left the train split, or moved with a repair, waits for it; one that a new
    held-out row came close to stays out.
    """
    result = Sifted()
    train = {name for row in sides["train"] for name in (row.id, *row.origin.parents)}
    known = {normalise(row.input_text) for row in sides["train"]}
    alive: list[Example] = []
    for row in rows:
        missing = next((p for p in row.origin.parents if p not in train), None)
        text = normalise(row.input_text)
        if missing is not None:
            result.dropped.append(dropped(row, "D11-P01", f"{missing} is no training row"))
        elif text in known:
            result.dropped.append(dropped(row, "D11-D01", "a training row says the same by now"))
        else:
            known.add(text)
            alive.append(row)
    held_out = [*sides["validation"], *sides["test"]]
    result.kept = far_from_held_out(alive, held_out, result)
    return result
