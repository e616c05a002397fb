"""A step's rows for processes whose weights are spread: all make the same passes.

Each pass gathers weights from all processes, so one that ran out of rows would leave the others
waiting. The rows go out in rounds of equally many; in the last round a process without a row of
its own computes another's, whose loss is divided to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tutelage.training.distributed import Team, draw_seed
from tutelage.training.recipe import Recipe
from tutelage.training.shared_step import StepResult

_NOTHING = 1e20  # what the loss of a repeated row is divided by: far below any rounding


class Lockstep:
    """A step in which every process makes as many passes as any other.

    `width` is how many token rows an item has; `gain` is by how much gradients are shrunk when
    they are brought together (the number of processes where that takes their mean).
    """

    def __init__(self, team: Team, step: Any, recipe: Recipe, gain: float = 1.0) -> None:
        self._team, self._step, self._recipe, self._gain = team, step, recipe, gain
        self._width = 2 if recipe.method == "dpo" else 1

    def __call__(
        self,
        rows: Sequence[Any],
        micro_batch: int,
        *,
        backward: bool = True,
        weight: float | None = None,
    ) -> StepResult:
        """Return the loss over all processes' rows; gradients go to where weights are kept."""
        whole = sum(row.weight for row in rows) if weight is None else weight
        live = [row for row in rows if getattr(row, "computed", 1) > 0]
        if backward:
            torch.manual_seed(draw_seed(self._recipe.seed, self._team.rank, rows))
        sums = [0.0, 0.0, 0.0]
        metrics: dict[str, float] = {}
        size = max(1, micro_batch // self._width)
        for mine, own in rounds(live, size, self._team):
            divisor = whole / self._gain if own else _NOTHING
            found = self._step(mine, len(mine) * self._width, backward=backward, weight=divisor)
            if own:
                share = sum(row.weight for row in mine) / whole
                values = (found.loss / self._gain, found.unique, found.total)
                sums = [a + b for a, b in zip(sums, values, strict=True)]
                for name, value in found.metrics.items():
                    metrics[name] = metrics.get(name, 0.0) + value * share
        return self._team.summed(StepResult(sums[0], whole, int(sums[1]), int(sums[2]), metrics))


def rounds(rows: Sequence[Any], size: int, team: Team) -> Iterator[tuple[list[Any], bool]]:
    """Yield this process's rows of each round, at most `size`, and whether they are its own."""
    place = 0
    while (left := len(rows) - place) >= team.size:
        count = min(size, left // team.size)
        start = place + team.rank * count
        yield list(rows[start : start + count]), True
        place += team.size * count
    if place < len(rows):
        own = place + team.rank < len(rows)
        yield [rows[place + team.rank if own else place]], own
