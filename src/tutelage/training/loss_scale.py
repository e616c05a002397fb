"""Dynamic loss scaling: small fp16 gradients are lifted above zero, too large ones skip a step.

Micikevicius et al. 2018 (arXiv 1710.03740), section 3.2, by torch.amp.GradScaler. The scale is
applied by dividing a step's loss by a smaller weight, so that it reaches every place where a
gradient is first computed in fp16. It is halved after an overflow and doubled after 200 steps
without one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch

from tutelage.training.recipe import Recipe
from tutelage.training.shared_step import StepResult

START = 2.0**13  # torch starts at 2**16, whose first steps are mostly skipped
GROWTH_STEPS = 200  # torch waits 2,000: more than a small run has
LEAST = 1.0  # gradients that overflow at this scale are no matter of scale


class LossScaler:
    """Wraps the step of a run and decides which updates are made."""

    def __init__(self, device: str) -> None:
        self._scaler = torch.amp.GradScaler(
            device, init_scale=START, growth_interval=GROWTH_STEPS, enabled=True
        )
        self._device = device

    @property
    def scale(self) -> float:
        """The factor of the next step's loss."""
        return float(self._scaler.get_scale())

    def wrap(self, step: Any) -> Any:
        """Return `step` with gradients times the scale, and its loss as it was."""

        @functools.wraps(step)
        def scaled(
            rows: Sequence[Any],
            micro_batch: int,
            *,
            backward: bool = True,
            weight: float | None = None,
        ) -> StepResult:
            if not backward:
                return step(rows, micro_batch, backward=False, weight=weight)  # type: ignore[no-any-return]
            whole = sum(row.weight for row in rows) if weight is None else weight
            scale = self.scale
            found = step(rows, micro_batch, backward=True, weight=whole / scale)
            return StepResult(found.loss / scale, whole, found.unique, found.total, found.metrics)

        return scaled

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, in place."""
        self._scaler.scale(torch.zeros((), device=self._device))  # makes its tensors, once
        self._scaler.unscale_(optimizer)

    def overflowed(self, norm: float) -> bool:
        """Return whether gradients of `norm` are to be dropped: a smaller scale may help."""
        return not math.isfinite(norm) and self.scale > LEAST

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights, unless a gradient overflowed, and then the scale."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, float]:
        """Return what a checkpoint must carry."""
        return dict(self._scaler.state_dict())

    def load(self, state: dict[str, float]) -> None:
        """Put `state` back; an empty one is a fresh start."""
        if state:
            self._scaler.load_state_dict(state)


def make_scaler(
    model: torch.nn.Module, recipe: Recipe, state: dict[str, float]
) -> LossScaler | None:
    """Return the scaler of a run in fp16, as a checkpoint's `state` left it; else None."""
    if recipe.precision != "fp16":
        return None
    scaler = LossScaler(next(model.parameters()).device.type)
    scaler.load(state)
    return scaler
