"""What live evaluation knows now, over HTTP. Read from memory alone."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from tutelage.feedback.live.hook import LiveEvaluator
from tutelage.serving.admin_guard import guarded
from tutelage.serving.state import GatewayState


def live_routes() -> list[Route]:
    """Return the route; it needs the role operator."""
    return [Route("/admin/live", guarded("operator", _live))]


async def _live(state: GatewayState, request: Request) -> Any:
    """Return each serving release's mean scores with bounds, and which have fallen."""
    worker = next((hook for hook in state.hooks if isinstance(hook, LiveEvaluator)), None)
    shown = dict(worker.watch.shown) if worker else {}
    names = {
        profile.id: profile.name
        for entry in state.router.entries.values()
        for profile in (entry.stable, entry.canary, entry.previous)
        if profile is not None
    }
    data = [
        {
            "deployment": deployment,
            "release": names.get(release, release[:12]),
            "fallen": [one.metric for one in standings if one.fallen],
            "metrics": [{**one.as_dict(), "sentence": one.sentence(names)} for one in standings],
        }
        for (deployment, release), standings in sorted(shown.items())
    ]
    return {"object": "list", "on": worker is not None, "data": data}
