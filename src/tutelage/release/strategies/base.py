"""The protocol of a strategy: how traffic shall move to a candidate. A plug-in group."""

from __future__ import annotations

from typing import Protocol

from tutelage.core.config import Deploy
from tutelage.release.rollout import RolloutPlan


class Strategy(Protocol):
    """Turns the `deploy` section into a plan; built without arguments."""

    def plan(self, deploy: Deploy) -> RolloutPlan:
        """Return the steps (percent) and what each must show before the next."""
        ...
