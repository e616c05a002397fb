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
from tutelage.training.shared_step import StepResult, device_of


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
    live = sorted((row for row in rows if row.computed > 0), key=lambda row: row.computed)
    loss, total = 0.0, 0
    for start in range(0, len(live), micro_batch):
        part = live[start : start + micro_batch]
        value = _divergence(model, part) / weight
        if backward:
            value.backward()
        loss += float(value.detach())
        total += len(part) * max(row.computed for row in part)
    return StepResult(loss, weight, total, total)


def _divergence(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    """Return the sum over tokens of weight · KL(base ‖ model), a scalar in nats."""
    device = device_of(model)
    width = max(row.computed for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    weights = torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        length = row.computed
        ids[index, :length] = torch.tensor(row.ids[:length])
        mask[index, :length] = 1
        weights[index, :length] = torch.tensor(row.weights[1 : length + 1])
    columns = weights.any(0).nonzero()[:, 0]
    weights = weights[:, columns].to(device)
    inputs = {
        "input_ids": ids.to(device), "attention_mask": mask.to(device), "use_cache": False,
        "logits_to_keep": columns.to(device),
    }  # fmt: skip
    with torch.no_grad(), model.disable_adapter():
        base = model(**inputs).logits.float().log_softmax(-1)
    own = model(**inputs).logits.float().log_softmax(-1)
    per_token = (base.exp() * (base - own)).sum(-1)  # NC
    return (per_token * weights).sum()


def join(parts: Sequence[StepResult]) -> StepResult:
    """Return one step's result from those of its parts, which were divided by the same weight."""
    return StepResult(
        sum(part.loss for part in parts),
        parts[0].weight,
        sum(part.unique for part in parts),
        sum(part.total for part in parts),
        parts[0].metrics,
    )
