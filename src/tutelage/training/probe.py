"""Time one real step before the run, so that the plan's minutes are this machine's minutes."""

from __future__ import annotations

import time
from typing import Any

from tutelage.training.prefix_tree import Row, build_forest
from tutelage.training.recipe import Recipe
from tutelage.training.shared_step import SharedStep, plain_step


def seconds_per_token(model: Any, rows: list[Row], recipe: Recipe) -> float:
    """Return the seconds a computed token takes, forward and backward; gradients are cleared.

    The first, smaller step warms the kernels up and is not counted.
    """
    batch = rows[: recipe.batch_size]
    shared = recipe.shared_prefix and build_forest(batch).pays
    step = SharedStep(model) if shared else None
    model.train()

    def once(part: list[Row]) -> int:
        if step is not None:
            return step(part, recipe.micro_batch).unique
        return plain_step(model, part, recipe.micro_batch).unique

    once(batch[:2])
    started = time.perf_counter()
    tokens = once(batch)
    elapsed = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return elapsed / max(1, tokens)
