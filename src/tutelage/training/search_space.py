"""What a search may change: for each setting the values around the planned one.

Every setting is a field of `train` in tutelage.yaml, so that what is found can be written there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core.errors import ConfigError, did_you_mean
from tutelage.training.recipe import Recipe

RATE = "learning_rate"
_REACH = 9.0  # the rate is looked for between a ninth and nine times the planned one
_GRID = 3.0  # the first sweep reaches a third and three times the planned one
_STEP = math.sqrt(_GRID)  # between two neighbours of the sweep


@dataclass(frozen=True)
class Dimension:
    """One setting. `choices` are its values in order; without them it runs from low to high."""

    name: str
    planned: Any
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0


def _around(*values: float, low: float) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function of the planned value that gives multiples of it, none below `low`."""

    def choices(planned: Any) -> tuple[Any, ...]:
        kind = type(planned)
        return tuple(kind(max(low, planned * value)) for value in values)

    return choices


def _fixed(*values: float) -> Callable[[Any], tuple[Any, ...]]:
    return lambda planned: values


_CHOICES: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "rank": _around(0.25, 0.5, 1, 2, low=2),
    "batch_size": _around(0.5, 1, 2, low=2),
    "epochs": _around(0.5, 1, 1.5, 2, low=1),
    "dropout": _fixed(0.0, 0.05, 0.1),
    "weight_decay": _fixed(0.0, 0.01, 0.1),
    "warmup": _fixed(0.0, 0.03, 0.1),
    "prompt_loss_weight": _fixed(0.0, 0.05, 0.1),
    "lora_plus": _fixed(1.0, 4.0, 16.0),
    "mixout": _fixed(0.0, 0.7, 0.9),
    "layer_decay": _fixed(0.8, 0.9, 0.95, 1.0),
}
SETTINGS = (RATE, *_CHOICES)


def usual(recipe: Recipe, *, going_on: bool = False) -> tuple[str, ...]:
    """Return what is searched unless the user says: the rate, size, length and batch.

    A run that goes on from earlier weights (`going_on`) has to keep their rank.
    """
    whole = "full" in (recipe.method, recipe.tune)
    size = ("layer_decay",) if whole else () if going_on else ("rank",)
    return (RATE, *size, "epochs", "batch_size")


def space(recipe: Recipe, names: Sequence[str]) -> tuple[Dimension, ...]:
    """Return the dimensions called `names`, the learning rate first.

    Raises ConfigError for a name that can't be searched.
    """
    wanted = sorted(dict.fromkeys(names), key=lambda name: name != RATE)
    return tuple(_dimension(name, recipe) for name in wanted)


def _dimension(name: str, recipe: Recipe) -> Dimension:
    if name not in SETTINGS:
        hint = did_you_mean(name, SETTINGS)
        raise ConfigError(
            f"{name!r} can't be searched", where="--over", fix=f"{hint}Known: {', '.join(SETTINGS)}"
        )
    planned = getattr(recipe, name)
    if name == RATE:
        return Dimension(name, planned, low=planned / _REACH, high=planned * _REACH)
    return Dimension(name, planned, choices=tuple(sorted({planned, *_CHOICES[name](planned)})))


def sweep(dimension: Dimension, trials: int) -> list[float]:
    """Return the rates of the first sweep, from the planned one outwards, at most `trials`.

    Five points, a factor of the root of 3 apart, from a third to three times the planned rate.
    """
    powers = (0, 1, -1, 2, -2)
    rates = [
        tidy(dimension.planned * _STEP**power) if power else dimension.planned for power in powers
    ]
    return rates[:trials]


def beyond(dimension: Dimension, losses: Mapping[float, float]) -> float | None:
    """Return the next rate if the best of `losses` (by rate) is at an end of those tried.

    The optimum may lie outside then. None where it lies inside, or at the end of the space.
    """
    if len(losses) < 2:
        return None
    best = min(losses, key=lambda rate: (losses[rate], rate))
    if best == max(losses):
        following = tidy(best * _STEP)
    elif best == min(losses):
        following = tidy(best / _STEP)
    else:
        return None
    return following if dimension.low <= following <= dimension.high else None


def tidy(rate: float) -> float:
    """Return a rate with two significant digits, as people write it."""
    return float(f"{rate:.1e}")
