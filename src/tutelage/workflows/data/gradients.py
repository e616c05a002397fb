"""Gradients of the dataset's rows over the trained adapter, kept on disk while they are made."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tutelage.core.artifact import Artifact, content_hash
from tutelage.core.events import Event
from tutelage.core.example import Example
from tutelage.core.workspace import atomic_write
from tutelage.inference.models import ModelSource, locate_model
from tutelage.workflows.context import Context
from tutelage.workflows.outputs import require_output

if TYPE_CHECKING:
    from tutelage.training.influence import RowGradients
    from tutelage.training.prefix_tree import Row

STAGE = "value"
_SHARD = 16  # rows between two writes
_FORM = 1  # of what is kept; a new number forgets the old gradients

Vectors = NDArray[np.float32]
Sides = tuple[list[Example], list[Example]]


def both_sides(
    ctx: Context, train: Sequence[Example], validation: Sequence[Example]
) -> tuple[Sides, tuple[Vectors, Vectors]]:
    """Return the rows that have a gradient and the gradients, shape (N, D), of both sides.

    Raises DataError if nothing was trained yet. Rows that were done before a kill are kept.
    """
    from tutelage.training.influence import encode_rows

    adapter = require_output(ctx, "train")
    if require_output(ctx, "curate").hash not in adapter.parents:
        said = "the adapter was trained on another dataset version; train again to be exact"
        ctx.emit(Event(STAGE, "warning", said))
    source = locate_model(ctx.config.model, ctx.workspace.root)
    limit = int(adapter.meta["recipe"]["max_tokens"])
    encoded = [encode_rows(source, rows, ctx.config.prompt, limit) for rows in (train, validation)]
    maker = _Maker(ctx, source, adapter, sum(len(rows) for rows in encoded))
    gradients = maker.gradients(encoded[0]), maker.gradients(encoded[1])
    by_id = {row.id: row for row in (*train, *validation)}
    kept = [[by_id[row.id] for row in rows] for rows in encoded]
    return (kept[0], kept[1]), gradients


@dataclass
class _Maker:
    """Makes gradients shard by shard; the model is loaded when the first one is missing."""

    ctx: Context
    source: ModelSource
    adapter: Artifact
    total: int
    done: int = 0
    _loaded: RowGradients | None = None

    def gradients(self, rows: Sequence[Row]) -> Vectors:
        """Return the gradients of the rows, shape (N, D)."""
        found = []
        for start in range(0, len(rows), _SHARD):
            part = rows[start : start + _SHARD]
            path = self._path(part)
            shard = _read(path, len(part))
            if shard is None:
                shard = self._model()(part)
                stream = io.BytesIO()
                np.save(stream, shard)
                atomic_write(path, stream.getvalue())
            found.append(shard)
            self.done += len(part)
            said = "gradients of single rows"
            self.ctx.emit(Event(STAGE, "progress", said, self.done, self.total))
        return np.concatenate(found)

    def _model(self) -> RowGradients:
        from tutelage.training.influence import open_gradients

        if self._loaded is None:
            self.ctx.emit(Event(STAGE, "note", f"loading {self.source.name} with its adapter"))
            self._loaded = open_gradients(self.source, self.ctx.path_of(self.adapter))
        return self._loaded

    def _path(self, rows: Sequence[Row]) -> Path:
        from tutelage.training.influence import DIMENSIONS, SEED

        key = [_FORM, self.adapter.hash, self.source.digest, DIMENSIONS, SEED]
        digest = content_hash([key, [[row.ids, row.weights] for row in rows]])
        folder = self.ctx.workspace.home / "cache" / "gradients" / self.adapter.short
        return folder / f"{digest[:24]}.npy"


def _read(path: Path, expected: int) -> Vectors | None:
    """Return a shard that was made before, or None if there is none or it is damaged."""
    try:
        found: Vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 2 and len(found) == expected else None
