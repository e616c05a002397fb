"""The protocol of a strategy: how traffic shall move to a candidate. A plug-in group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from tutelage.core import plugins
from tutelage.core.config import Deploy
from tutelage.core.errors import DataError
from tutelage.release.rollout import RolloutPlan

# what a rollout may say of itself, and the one strategy in the box that listens to it
_LISTENS = {"steps": "canary", "split": "ab"}
_BUILT_IN = ("canary", "blue_green", "rolling", "ab", "shadow")


class Strategy(Protocol):
    """Turns the `deploy` section into a plan; built without arguments."""

    def plan(self, deploy: Deploy) -> RolloutPlan:
        """Return the steps (percent) and what each must show before the next."""
        ...


def plan_of(
    deploy: Deploy,
    strategy: str,
    *,
    steps: Sequence[float] | None = None,
    split: float | None = None,
) -> RolloutPlan:
    """Return what a strategy makes of the settings; an unknown one lists those there are.

    `steps` (percent, a canary's) and `split` (percent, an A/B's) go before those of the settings.
    Raises DataError for what can't be one.
    """
    made: Strategy = plugins.load("strategies", strategy)()
    changed = _changed(deploy, steps, split)
    if strategy in _BUILT_IN:
        _require_listener(strategy, {"steps": steps or None, "split": split})
    return made.plan(changed)


def _require_listener(strategy: str, asked: Mapping[str, Any]) -> None:
    for name, value in asked.items():
        wanted = _LISTENS[name]
        if value is not None and strategy != wanted:
            raise DataError(
                f"a rollout of the strategy {strategy} has no {name}",
                fix=f"Leave {name} out, or choose the strategy {wanted}",
            )


def _changed(deploy: Deploy, steps: Sequence[float] | None, split: float | None) -> Deploy:
    values: dict[str, Any] = {"canary": steps or None, "split": split}
    asked = {name: value for name, value in values.items() if value is not None}
    try:
        return Deploy.model_validate({**deploy.model_dump(), **asked})
    except ValidationError as error:
        what = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        named = ", ".join(f"{name} {value}" for name, value in asked.items())
        raise DataError(f"{named} can't be used: {what}") from error


def promoting(deploy: Deploy, steps: tuple[float, ...], *, rehearse: bool) -> RolloutPlan:
    """Return a plan that ends with the candidate as stable, after a mirrored step if asked."""
    first = deploy.rehearse if deploy.rehearse is not None else rehearse
    return RolloutPlan(
        steps=(deploy.mirror, *steps) if first else steps,
        min_requests=deploy.min_requests,
        min_total=deploy.min_total,
        shadow=int(first),
    )
