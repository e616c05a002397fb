"""The plain strategy: every process holds the whole model and makes the same update.

What a run does with its weights beyond the step goes through a Strategy: place them, copy them,
put copies back, clip and update. Strategies that spread the weights override it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from tutelage.training import adapters, checkpoint, optim, precision
from tutelage.training.recipe import Recipe

if TYPE_CHECKING:
    from tutelage.training.distributed import Team

Tensors = dict[str, torch.Tensor]


class Strategy:
    """Weights that lie whole in each process."""

    reason = ""  # why prefixes can't be shared

    def __init__(self, recipe: Recipe, team: Team) -> None:
        self.recipe, self.team = recipe, team

    def place(self, model: Any) -> Any:
        """Return `model`, whose trained parameters are chosen, where and as it is trained."""
        return model.to(self.team.device)

    def narrow(self, model: Any) -> None:
        """Store what is frozen in the recipe's precision."""
        precision.halve_frozen(model, self.recipe.precision)

    def optimizer(self, model: Any) -> torch.optim.Optimizer:
        """Return the optimizer of the placed model."""
        return optim.make_optimizer(model, self.recipe)

    def share(self, step: Any, model: Any) -> Any:
        """Return the step over all processes' rows."""
        return self.team.share(step, model, self.recipe)

    def score(self, measure: Callable[[Any], float] | None) -> Callable[[Any], float] | None:
        """Return `measure`, the same value in all processes."""
        return self.team.score(measure)

    def snapshot(self, model: Any) -> Tensors:
        """Return a copy of the trained weights, on the CPU; all processes must call it."""
        return adapters.snapshot(model)

    def restore(self, model: Any, weights: Tensors) -> None:
        """Put a snapshot back."""
        adapters.restore(model, weights)

    def state(self, optimizer: torch.optim.Optimizer) -> Tensors:
        """Return the optimizer's state, on the CPU; all processes must call it."""
        return checkpoint.optimizer_tensors(optimizer)

    def load(self, optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
        """Put the optimizer's state back."""
        checkpoint.load_optimizer(optimizer, tensors)

    def clip(self, model: Any, limit: float) -> float:
        """Scale the gradients to a norm of at most `limit`; return the norm they had."""
        trained = adapters.trained_parameters(model).values()
        return float(torch.nn.utils.clip_grad_norm_(trained, limit))

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Change the weights by the gradients."""
        optimizer.step()

    def finished(self, model: Any, best: Tensors, fresh: Callable[[], Any]) -> Any:
        """Return a model with the `best` weights that can be saved; `fresh` loads it anew."""
        self.restore(model, best)
        return model
