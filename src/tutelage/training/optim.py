"""The optimizer and the learning rate at each step; the rate is a function of the step alone."""

from __future__ import annotations

import math

import torch

from tutelage.training.adapters import trained_parameters
from tutelage.training.recipe import Recipe


def make_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW over what the model trains; one-dimensional ones (norms, biases) never decay.

    Each group's `scale` multiplies the learning rate of a step.
    """
    trained = list(trained_parameters(model).values())
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kept = [{**group, "scale": 1.0} for group in groups if group["params"]]
    return torch.optim.AdamW(kept, lr=recipe.learning_rate)


def rate_at(step: int, total: int, recipe: Recipe) -> float:
    """Return the learning rate of 0-based `step` of `total`.

    It rises linearly over the warm-up (the first step is not wasted at 0), then falls to 0 just
    after the last step (linear or cosine) or stays.
    """
    warm = round(recipe.warmup * total)
    if step < warm:
        return recipe.learning_rate * (step + 1) / (warm + 1)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    done = (step - warm) / max(1, total - warm)
    if recipe.schedule == "cosine":
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    return recipe.learning_rate * (1 - done)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the step's learning rate times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
