"""Shadow: the candidate answers copies of requests, nobody sees its answers, stable stays."""

from __future__ import annotations

from tutelage.core.config import Deploy
from tutelage.release.rollout import RolloutPlan


class Shadow:
    """One mirrored step; it is completed when `deploy.min_total` copies held every limit."""

    def plan(self, deploy: Deploy) -> RolloutPlan:
        """Return the plan that the configuration asks for."""
        return RolloutPlan(
            steps=(deploy.mirror,),
            min_requests=deploy.min_requests,
            min_total=deploy.min_total,
            shadow=1,
            end="complete",
        )
