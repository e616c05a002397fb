"""The protocol of a strategy: how traffic shall move to a candidate. A plug-in group."""

from __future__ import annotations

from typing import Protocol

from tutelage.core import plugins
from tutelage.core.config import Deploy
from tutelage.release.rollout import RolloutPlan


class Strategy(Protocol):
    """Turns the `deploy` section into a plan; built without arguments."""

    def plan(self, deploy: Deploy) -> RolloutPlan:
        """Return the steps (percent) and what each must show before the next."""
        ...


def plan_of(deploy: Deploy, strategy: str) -> RolloutPlan:
    """Return what a strategy makes of the settings; an unknown one lists those there are."""
    made: Strategy = plugins.load("strategies", strategy)()
    return made.plan(deploy)


def promoting(deploy: Deploy, steps: tuple[float, ...], *, rehearse: bool) -> RolloutPlan:
    """Return a plan that ends with the candidate as stable, after a mirrored step if asked."""
    first = deploy.rehearse if deploy.rehearse is not None else rehearse
    return RolloutPlan(
        steps=(deploy.mirror, *steps) if first else steps,
        min_requests=deploy.min_requests,
        min_total=deploy.min_total,
        shadow=int(first),
    )
