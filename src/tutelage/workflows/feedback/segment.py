"""Keep training and test apart in production: twins of held-out rows leave training.

`hold_apart` comes before rows are taken for training; `ready_rows` returns what may be taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tutelage.core.example import SplitName
from tutelage.data.version import load_version
from tutelage.feedback.segment import Corrected, trainable
from tutelage.feedback.segment_twins import (
    HeldOut,
    Moved,
    any_records,
    held_out_inputs,
    move_twins,
    moves,
    moves_so_far,
)
from tutelage.workflows.context import Context, last_output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HELD: tuple[SplitName, ...] = ("validation", "test")


def hold_apart(ctx: Context, *, everything: bool = False) -> dict[str, Any]:
    """Move the records that are twins of held-out rows out of training; return what moved.

    Held out are the validation and test rows of the newest dataset version, and what production
    saw on these sides. `everything` looks for near twins of all records, not only of those with a
    correction.
    """
    semantic = ctx.config.data.splits.semantic

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        from tutelage.workflows.data.sides import embedded

        return embedded(ctx, semantic or "", texts)[1]

    moved: list[Moved] = []
    if any_records(ctx.store):
        moved = move_twins(
            ctx.store,
            held_out_inputs(ctx.store, _frozen(ctx)),
            threshold=ctx.config.data.dedup.threshold,
            embed=embed if semantic else None,
            everything=everything,
        )
    return {
        "moved": len(moved),
        "by_side": dict(Counter(one.twin.of.side for one in moved)),
        "by_reason": dict(Counter(one.twin.how for one in moved)),
        "first": [
            {"record": one.record, "from": one.before, "to": one.twin.of.side,
             "reason": one.twin.reason}
            for one in moved[:20]
        ],
    }  # fmt: skip


def fingerprint(ctx: Context) -> dict[str, Any]:
    """Return what decides, among the moves so far, which rows a new version leaves out."""
    count, newest = moves_so_far(ctx.store)
    return {"moved": [count, newest.isoformat()]} if newest else {}


def moved_records(ctx: Context, limit: int = 20) -> list[dict[str, Any]]:
    """Return the records that were moved out of training, the newest move first."""
    return [
        {"record": row.record, "from": row.before, "to": row.after, "how": row.how,
         "similarity": row.similarity, "twin": row.twin, "at": row.at}
        for row in moves(ctx.store, limit)
    ]  # fmt: skip


def ready_rows(ctx: Context) -> list[Corrected]:
    """Return the corrected rows of production that may be trained on and are in no version yet."""
    return trainable(
        ctx.store,
        ctx.config.output.format(),
        held_out=_frozen(ctx),
        threshold=ctx.config.data.dedup.threshold,
    )


def _frozen(ctx: Context) -> dict[str, HeldOut]:
    """Return the held-out rows of the newest dataset version by input text."""
    artifact = last_output(ctx, "curate")
    if artifact is None or not ctx.path_of(artifact).exists():
        return {}
    version = load_version(ctx.path_of(artifact))
    return {
        row.input_text: HeldOut(split, row.id) for split in _HELD for row in version.stream(split)
    }
