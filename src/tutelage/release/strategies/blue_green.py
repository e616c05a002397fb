"""Blue-green: the candidate is judged on mirrored requests, then all traffic switches at once.

The release before stays loaded for `deploy.keep_warm` seconds, so a return takes no loading.
"""

from __future__ import annotations

from tutelage.core.config import Deploy
from tutelage.release.rollout import RolloutPlan
from tutelage.release.strategies.base import promoting


class BlueGreen:
    """One switch; without `deploy.rehearse` it comes first and is judged afterwards."""

    def plan(self, deploy: Deploy) -> RolloutPlan:
        """Return the plan that the configuration asks for."""
        return promoting(deploy, (100.0,), rehearse=True)
