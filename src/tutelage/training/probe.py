"""One real step before the run: this machine's seconds, and the bytes this model keeps.

The step is a small one of the run's own rows through the run's own path. Bytes are counted as
autograd saves them, so they hold for any model and any kernel.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from tutelage.core.events import silent
from tutelage.training.methods.base import Objective
from tutelage.training.profile import Measured
from tutelage.training.recipe import Recipe

_COUNTED = 2  # rows of the step whose kept bytes are counted


def probe(model: Any, objective: Objective, items: Sequence[Any], recipe: Recipe) -> Measured:
    """Return what one step of `recipe` takes; gradients are cleared.

    A first, smaller step warms the kernels up and counts the kept bytes; it is not timed.
    """
    items = items[: max(_COUNTED, recipe.batch_size)]
    step, _ = objective.step(model, items, recipe, silent)
    model.train()
    few = list(items[:_COUNTED])
    with _Kept(model) as kept:
        tokens = step(few, len(few)).unique
    started = time.perf_counter()
    timed = step(list(items[: recipe.batch_size]), recipe.micro_batch).unique
    elapsed = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return Measured(
        seconds_per_token=elapsed / max(1, timed),
        bytes_per_token=kept.total / max(1, tokens),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


class _Kept:
    """Counts the bytes of tensors that autograd keeps, the model's own weights left out."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self._seen: set[int] = set()
        self.total = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept)

    def __enter__(self) -> _Kept:
        self._hooks.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        self._hooks.__exit__(*problem)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if (place := storage.data_ptr()) not in self._own and place not in self._seen:
            self._seen.add(place)
            self.total += storage.nbytes()
        return tensor
