"""Canary: a small share first, more on evidence, all at the end."""

from __future__ import annotations

from tutelage.core.config import Deploy
from tutelage.release.rollout import RolloutPlan
from tutelage.release.strategies.base import promoting


class Canary:
    """The steps and minimums of tutelage.yaml's `deploy`."""

    def plan(self, deploy: Deploy) -> RolloutPlan:
        """Return the plan that the configuration asks for."""
        return promoting(deploy, tuple(deploy.canary), rehearse=False)
