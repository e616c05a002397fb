"""Back towards the base after training, as far as the validation rows lose nothing for certain.

The weights on the line from the base to the tuned model keep more of the base the nearer they are
to it, often at no cost on the task (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903, section 3).
How far to go is the one-standard-error rule (Breiman et al. 1984, section 3.4.3): the smallest
share of the change whose validation loss is within one standard error of the whole change's.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tutelage.core.events import Event
from tutelage.training.loop import STAGE, Item, Parts, Step, Weights
from tutelage.training.recipe import LEAST_TO_INTERPOLATE
from tutelage.training.strategies import SPREAD

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5)  # of the change, tried in this order
_GROUPS = 10  # groups of rows whose losses tell the standard error
_MOST_ROWS = 320  # validation rows looked at


def interpolate(
    parts: Parts, best: Weights, base: Callable[[], Weights] | None
) -> tuple[Weights, dict[str, Any]]:
    """Return the weights to keep, and the report: {"share", "looks"} or {"share", "reason"}.

    `base` gives the trained weights as they were untrained; None for LoRA's. The model is left
    with some of the weights that were tried.
    """
    if not parts.recipe.interpolate:
        return best, {"share": 1.0, "reason": "the recipe turns it off"}
    if parts.recipe.strategy in SPREAD:
        return best, {"share": 1.0, "reason": "the weights are spread over processes"}
    if len(parts.validation) < LEAST_TO_INTERPOLATE:
        return best, {"share": 1.0, "reason": f"fewer than {LEAST_TO_INTERPOLATE} validation rows"}
    parts.optimizer.state.clear()  # training is over: room for the base
    untrained = base() if base else None

    def measure(share: float) -> list[float]:
        parts.strategy.restore(parts.model, between(best, untrained, share))
        return group_losses(parts.model, parts.step, parts.validation, parts.recipe.micro_batch)

    share, looks = choose_share(measure)
    parts.emit(Event(STAGE, "note", sentence(share)))
    return between(best, untrained, share), {"share": share, "looks": looks}


def sentence(share: float) -> str:
    """Return what was kept in words."""
    if share == 1.0:
        return "The whole change is kept: with less of it validation loses"
    return f"{share:.0%} of the change is kept: validation loses nothing for certain"


def between(
    best: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor] | None, share: float
) -> Weights:
    """Return the trained weights with `share` of the change from the base.

    `base` holds the same weights untrained. None: they are LoRA's, whose change of a layer is
    s B A, so B alone is scaled.
    """
    if base is not None:
        return {name: base[name].lerp(tensor, share) for name, tensor in best.items()}
    return {name: t * share if ".lora_B." in name else t for name, t in best.items()}


def choose_share(measure: Callable[[float], Sequence[float]]) -> tuple[float, list[dict[str, Any]]]:
    """Return the share of the change to keep, and what was measured on the way.

    `measure` gives the losses of the same groups of validation rows, two or more, at a share.
    """
    whole = measure(1.0)
    looks = [_look(1.0, whole, 0.0, 0.0)]
    kept = 1.0
    for share in SHARES:
        losses = measure(share)
        if not all(map(math.isfinite, losses)):
            break
        changes = [a - b for a, b in zip(losses, whole, strict=True)]
        error = statistics.stdev(changes) / math.sqrt(len(changes))
        rise = statistics.mean(changes)
        looks.append(_look(share, losses, rise, error))
        if rise > error:
            break
        kept = share
    return kept, looks


def group_losses(
    model: torch.nn.Module, step: Step, rows: Sequence[Item], micro_batch: int
) -> list[float]:
    """Return the mean loss of each group of `rows`: contiguous, as equal in number as can be."""
    rows = rows[:_MOST_ROWS]
    count = min(_GROUPS, len(rows))
    ends = [round(len(rows) * number / count) for number in range(count + 1)]
    model.eval()
    losses = []
    for first, last in itertools.pairwise(ends):
        with torch.no_grad():
            losses.append(step(rows[first:last], micro_batch, backward=False).loss)
    return losses


def _look(share: float, losses: Sequence[float], rise: float, error: float) -> dict[str, Any]:
    return {
        "share": share,
        "validation_loss": round(statistics.mean(losses), 6),
        "rise": round(rise, 6),
        "standard_error": round(error, 6),
    }
