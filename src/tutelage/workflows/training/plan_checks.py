"""What a run would fail of although its plan can be made: said before the plan is shown.

No model is loaded and nothing is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.core.errors import PlanRefused
from tutelage.workflows.context import Context
from tutelage.workflows.training.replay import fingerprint, require_use

if TYPE_CHECKING:
    from tutelage.training.planner import Plan
    from tutelage.training.recipe import Recipe


def require_settings(ctx: Context) -> None:
    """Raise ConfigError for a tracker or a file of general text that is not there.

    Raises EnvironmentProblem if a tracker's package is not installed.
    """
    from tutelage.training.tracker import TrackedRun, make_tracker

    fingerprint(ctx)
    run = TrackedRun(ctx.workspace, ctx.config.name, ctx.workspace.runs)
    make_tracker(ctx.config.train.tracker, run)


def require_machine(ctx: Context, recipe: Recipe) -> None:
    """Raise an error if this machine can't train with `recipe`; Ray looks for its own machines."""
    from tutelage.training.kernels import require_attention, require_kernel
    from tutelage.training.strategies.zero import require_deepspeed

    if ctx.config.train.launcher == "ray":
        return
    if recipe.strategy in ("zero2", "zero3"):
        require_deepspeed()
    require_attention(recipe.attention)  # no precision helps where there is no GPU
    require_kernel(recipe)


def require_recipe(recipe: Recipe) -> None:
    """Raise ConfigError for settings that have no meaning beside each other."""
    from tutelage.training.strategies import require_computable

    require_use(recipe)
    require_computable(recipe)


def require_wanted(plan: Plan) -> None:
    """Raise PlanRefused if the planner advises against the run."""
    if plan.refusal:
        raise PlanRefused(plan.refusal, fix="Label more rows, or set train.force: true")
