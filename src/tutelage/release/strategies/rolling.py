"""Rolling: one replica after the other is moved to the candidate, and its share of traffic."""

from __future__ import annotations

from dataclasses import replace

from tutelage.core.config import Deploy
from tutelage.core.errors import ConfigError
from tutelage.release.rollout import RolloutPlan
from tutelage.release.strategies.base import promoting


class Rolling:
    """As many equal steps as `deploy.endpoints` has backends."""

    def plan(self, deploy: Deploy) -> RolloutPlan:
        """Return the plan; raise ConfigError if there are fewer than two backends."""
        replicas = len(deploy.endpoints)
        if replicas < 2:
            raise ConfigError(
                f"a rolling rollout needs two backends or more, 'deploy.endpoints' has {replicas}",
                fix="List the backends there, or use --strategy canary",
            )
        steps = tuple(round(100 * (place + 1) / replicas, 6) for place in range(replicas))
        return replace(promoting(deploy, steps, rehearse=False), replicas=replicas)
