"""A/B: a fixed share of users gets the candidate until somebody ends it.

Harm still ends it: what fails a canary returns an A/B to stable. Which arm is better is another
question than whether one does harm, and not answered here.
"""

from __future__ import annotations

from tutelage.core.config import Deploy
from tutelage.release.rollout import RolloutPlan


class AB:
    """One step of `deploy.split` percent that stays; a user keeps the arm of the first request."""

    def plan(self, deploy: Deploy) -> RolloutPlan:
        """Return the plan that the configuration asks for."""
        return RolloutPlan(
            steps=(deploy.split,),
            min_requests=deploy.min_requests,
            min_total=deploy.min_total,
            return_after_s=None,
            end="stay",
        )
