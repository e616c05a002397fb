"""The checks in force and the watch over drift, over HTTP. Read from memory alone."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from tutelage.serving.admin_guard import guarded
from tutelage.serving.guards.monitor import DriftMonitor
from tutelage.serving.router import Profile
from tutelage.serving.state import GatewayState


def guard_routes() -> list[Route]:
    """Return the route; it needs the role operator."""
    return [Route("/admin/guards", guarded("operator", _guards))]


async def _guards(state: GatewayState, request: Request) -> Any:
    """Return each deployment's releases with their checks and what has drifted."""
    monitor = next((hook for hook in state.hooks if isinstance(hook, DriftMonitor)), None)

    def one(deployment: str, arm: str, profile: Profile) -> dict[str, Any]:
        drift = monitor.states(deployment, profile.id) if monitor else []
        return {
            "deployment": deployment,
            "arm": arm,
            "release": profile.name,
            "guards": {active.name: active.action for active in profile.guards},
            "drift": [found.as_dict() for found in drift],
        }

    arms = [
        one(name, arm, profile)
        for name, entry in sorted(state.router.entries.items())
        for arm, profile in (("stable", entry.stable), ("canary", entry.canary))
        if profile is not None
    ]
    return {"object": "list", "data": arms}
