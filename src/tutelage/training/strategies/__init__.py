"""How several processes share one run, by the name in recipe.strategy.

none and ddp: every process holds the whole model (base.py). fsdp2: weights, gradients and
optimizer are spread (fsdp2.py). zero2, zero3: the same by DeepSpeed (zero.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.core.errors import ConfigError
from tutelage.training.planner_rules import SPREAD, WHOLE_STEP
from tutelage.training.recipe import Recipe
from tutelage.training.strategies.base import Strategy

if TYPE_CHECKING:
    from tutelage.training.distributed import Team

__all__ = ["SPREAD", "make_strategy", "require_computable"]


def make_strategy(recipe: Recipe, team: Team) -> Strategy:
    """Return the recipe's strategy. Raises ConfigError if it can't train the recipe's method."""
    if recipe.strategy not in SPREAD:
        return Strategy(recipe, team)
    require_computable(recipe)
    if recipe.strategy == "fsdp2":
        from tutelage.training.strategies.fsdp2 import Fsdp2

        return Fsdp2(recipe, team)
    from tutelage.training.strategies.zero import Zero

    return Zero(recipe, team)


def require_computable(recipe: Recipe) -> None:
    """Raise ConfigError for what can't be computed with weights that are spread, where they are."""
    if recipe.strategy not in SPREAD:
        return
    instead = "Set train.strategy: ddp"
    wrong = [
        (recipe.method in WHOLE_STEP, f"method {recipe.method!r}"),
        ("qlora" in (recipe.method, recipe.tune), "4-bit weights (qlora)"),
        (recipe.mixout > 0, "Mixout"),
        (recipe.precision == "fp16", "precision fp16"),
    ]
    for is_wrong, what in wrong:
        if is_wrong:
            raise ConfigError(
                f"train.strategy {recipe.strategy!r} can't train with {what}",
                where="train.strategy",
                fix=instead if "fp16" not in what else "Set train.precision: bf16",
            )
