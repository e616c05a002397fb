"""Replayed rows that hold a model to its base: the loss is the divergence from the base's odds.

On a replayed row the model is not taught the words that stand there but how likely the base finds
every next word: KL(base ‖ model), nats a token (learning without forgetting, Li & Hoiem 2016,
arXiv 1606.09282, with the distribution in place of its argmax). It is zero where training starts,
and a whole distribution says more than one drawn word, so few rows go far. The base is the model
with its adapter switched off: nothing is loaded twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from tutelage.training.prefix_tree import Row
from tutelage.training.shared_step import StepResult, device_of, pad, padded_logits, plain_step


def as_heavy_as(rows: Sequence[Row], replayed: Sequence[Row], *, odds: bool) -> list[Row]:
    """Return `replayed`, each with the mean weight of `rows`, whatever its length.

    With `odds` the loss of each is its divergence from the base.
    """
    mean = sum(row.weight for row in rows) / len(rows) if rows else 0.0
    made = []
    for row in replayed:
        factor = mean / row.weight if mean and row.weight else 1.0
        weights = tuple(weight * factor for weight in row.weights)
        made.append(replace(row, weights=weights, odds=odds))
    return made


def odds_step(
    model: Any, rows: Sequence[Row], micro_batch: int, weight: float, *, backward: bool = True
) -> StepResult:
    """Add the gradients of the rows' divergence from the base, divided by `weight`; return it.

    `model` has a PEFT adapter. Rows are padded, `micro_batch` of them a pass.
    """
    return plain_step(
        model, rows, micro_batch, backward=backward, weight=weight, losses=_divergences
    )


def _divergences(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    """Return each row's sum over tokens of weight · KL(base ‖ model), nats, (N,)."""
    batch = pad(rows, device_of(model))
    with torch.no_grad(), model.disable_adapter():
        base = padded_logits(model, batch).log_softmax(-1)
    own = padded_logits(model, batch).log_softmax(-1)
    per_token = (base.exp() * (base - own)).sum(-1)  # (N · C,)
    return (per_token * batch.weights.flatten()).unflatten(0, (len(rows), -1)).sum(1)


def join(parts: Sequence[StepResult]) -> StepResult:
    """Return one step's result from those of its parts, which were divided by the same weight."""
    return StepResult(
        sum(part.loss for part in parts),
        parts[0].weight,
        sum(part.unique for part in parts),
        sum(part.total for part in parts),
        parts[0].metrics,
    )
