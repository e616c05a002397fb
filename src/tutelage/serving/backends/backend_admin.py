"""Deployments, servers and kept-alive models over HTTP.

Every database call runs in a worker thread, off the hot path.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from tutelage.core.errors import DataError
from tutelage.release.bundle import get_release
from tutelage.release.deployment_names import create_deployment, remove_deployment
from tutelage.release.routes import deployments
from tutelage.serving.admin_guard import guarded
from tutelage.serving.backends.keep_alive import KeepAlive
from tutelage.serving.launchers.remote import RemoteLauncher
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.body import read_json
from tutelage.store.base import Store
from tutelage.store.releases import DeploymentRow, ReleaseRow

_PATIENCE_S, _PAUSE_S = 10.0, 0.02  # for the engine to load what a new deployment needs


def backend_routes() -> list[Route]:
    """Return the routes; all of them need the role operator."""
    one = "/admin/deployments/{name}"
    return [
        Route("/admin/backends", guarded("operator", _backends)),
        Route("/admin/keep-alive", guarded("operator", _kept)),
        Route("/admin/deployments", guarded("operator", _list)),
        Route("/admin/deployments", guarded("operator", _create), methods=["POST"]),
        Route(one, guarded("operator", _remove), methods=["DELETE"]),
    ]


def describe_deployment(store: Store, row: DeploymentRow) -> dict[str, Any]:
    """Return a deployment as plain data, its releases by name."""
    with store.session() as session:
        stable = session.get(ReleaseRow, row.stable)
        previous = session.get(ReleaseRow, row.previous) if row.previous else None
    return {
        "name": row.name,
        "stable": stable.name if stable else row.stable[:12],
        "previous": previous.name if previous else None,
        "updated_at": row.updated_at.isoformat(timespec="seconds"),
    }


async def _backends(state: GatewayState, request: Request) -> Any:
    if not isinstance(state.host, RemoteLauncher):
        return {"object": "list", "data": []}
    return {"object": "list", "data": await state.host.describe()}


async def _kept(state: GatewayState, request: Request) -> Any:
    keepers = [hook for hook in state.hooks if isinstance(hook, KeepAlive)]
    kept = [model for keeper in keepers for model in keeper.kept.values()]
    rows = await asyncio.to_thread(lambda: [model.pulse().as_dict() for model in kept])
    return {"object": "list", "data": rows}


async def _list(state: GatewayState, request: Request) -> Any:
    def work() -> list[dict[str, Any]]:
        return [describe_deployment(state.store, row) for row in deployments(state.store)]

    return {"object": "list", "data": await asyncio.to_thread(work)}


async def _create(state: GatewayState, request: Request) -> Any:
    body = await read_json(request)
    name, wanted = str(body.get("name") or ""), str(body.get("release") or "")
    if not wanted:
        raise DataError("'release' is missing", fix="GET /admin/releases lists them")

    def work() -> dict[str, Any]:
        release = get_release(state.store, wanted)
        return describe_deployment(state.store, create_deployment(state.store, name, release.id))

    made = await asyncio.to_thread(work)
    return {**made, "ready": await _answers(state, name)}


async def _remove(state: GatewayState, request: Request) -> Any:
    name = request.path_params["name"]
    if name == state.project.name:
        raise DataError(f"{name!r} is the project's own deployment, which stays")
    rollouts = await asyncio.to_thread(remove_deployment, state.store, name)
    await _refresh(state)
    return {"name": name, "removed": True, "rollouts": rollouts}


async def _answers(state: GatewayState, name: str) -> bool:
    """Wait until requests for a new deployment are taken; return False if its release is slow."""
    until = time.monotonic() + _PATIENCE_S
    while name not in state.router.entries and time.monotonic() < until:
        await _refresh(state)
        await asyncio.sleep(_PAUSE_S)
    return name in state.router.entries


async def _refresh(state: GatewayState) -> None:
    if state.refresh is not None:
        await state.refresh()
