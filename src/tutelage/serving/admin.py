"""What an operator can ask and do over HTTP: rollouts, releases, API keys.

Every database call runs in a worker thread, off the hot path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tutelage.core.errors import Conflict, DataError, TutelageError
from tutelage.release.bundle import list_releases
from tutelage.release.deployments import abort, active_rollout, journal, promote, state_of
from tutelage.serving.body import read_json
from tutelage.serving.key_store import create_key, list_keys, revoke_key
from tutelage.serving.keys import KeyRole
from tutelage.serving.state import GatewayState
from tutelage.serving.wire import HttpError, json_response
from tutelage.store.base import Store
from tutelage.store.releases import DeploymentRow, RolloutRow

Handler = Callable[[GatewayState, Request], Awaitable[Any]]


def admin_routes() -> list[Route]:
    """Return the routes under /admin."""
    return [
        Route("/admin/rollouts", _guarded("operator", _rollouts)),
        Route("/admin/rollouts/{id}/promote", _guarded("operator", _promote), methods=["POST"]),
        Route("/admin/rollouts/{id}/abort", _guarded("operator", _abort), methods=["POST"]),
        Route("/admin/releases", _guarded("operator", _releases)),
        Route("/admin/keys", _guarded("admin", _keys)),
        Route("/admin/keys", _guarded("admin", _new_key), methods=["POST"]),
        Route("/admin/keys/{name}", _guarded("admin", _drop_key), methods=["DELETE"]),
    ]


def _guarded(role: KeyRole, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        state: GatewayState = request.app.state.gateway
        try:
            if not state.keys.identify(request.headers).may(role):
                raise HttpError(403, f"This needs a key with the role '{role}'.", code="forbidden")
            return json_response(await handler(state, request))
        except HttpError as error:
            return error.response()
        except TutelageError as error:
            return from_user_error(error).response()

    return endpoint


def from_user_error(error: TutelageError) -> HttpError:
    """Return the HTTP form of an error that a person can act on."""
    status = 409 if isinstance(error, Conflict) else 404 if isinstance(error, DataError) else 400
    return HttpError(status, error.sentence(), code=type(error).__name__.lower())


async def _rollouts(state: GatewayState, request: Request) -> Any:
    return {"object": "list", "data": await asyncio.to_thread(describe_rollouts, state.store)}


def describe_rollouts(store: Store, limit: int = 50) -> list[dict[str, Any]]:
    """Return the newest rollouts with their journals, as plain data."""
    with store.session() as session:
        query = select(RolloutRow).order_by(RolloutRow.created_at.desc()).limit(limit)
        rows = list(session.scalars(query))
    return [_rollout(store, row) for row in rows]


def _rollout(store: Store, row: RolloutRow) -> dict[str, Any]:
    state = state_of(row)
    return {
        "id": row.id,
        "deployment": row.deployment,
        "baseline": row.baseline,
        "candidate": row.candidate,
        "strategy": row.strategy,
        "state": row.state,
        "step": row.step,
        "steps": list(state.plan.steps),
        "weight": state.weight,
        "created_at": row.created_at,
        "journal": [
            {
                "from": move.from_state,
                "to": move.to_state,
                "step": move.step,
                "weight": move.weight,
                "reason": move.reason,
                "evidence": move.evidence,
                "at": move.at,
            }
            for move in journal(store, row.id)
        ],
    }


async def _promote(state: GatewayState, request: Request) -> Any:
    return await _end(state, request, promote, "promoted")


async def _abort(state: GatewayState, request: Request) -> Any:
    return await _end(state, request, abort, "aborted")


async def _end(
    state: GatewayState, request: Request, move: Callable[..., RolloutRow], word: str
) -> Any:
    name = state.keys.identify(request.headers).name or "the local user"
    reason = f"{word} by {name} over HTTP"

    def work() -> dict[str, Any]:
        with state.store.session() as session:
            row = session.get(RolloutRow, request.path_params["id"])
        if row is None:
            raise DataError(
                f"there is no rollout {request.path_params['id']!r}",
                fix="GET /admin/rollouts lists them",
            )
        running = active_rollout(state.store, row.deployment)
        if running is None or running.id != row.id:
            raise Conflict(f"the rollout has ended ({row.state})", where=row.deployment)
        return _rollout(state.store, move(state.store, row.deployment, reason=reason))

    result = await asyncio.to_thread(work)
    if state.refresh is not None:
        await state.refresh()
    return result


async def _releases(state: GatewayState, request: Request) -> Any:
    def work() -> list[dict[str, Any]]:
        with state.store.session() as session:
            serving = {row.stable: row.name for row in session.scalars(select(DeploymentRow))}
        return [
            {
                "id": row.id,
                "name": row.name,
                "kind": row.kind,
                "serves": serving.get(row.id),
                "dataset": row.manifest.get("dataset"),
                "evaluation": row.manifest.get("evaluation"),
                "created_at": row.created_at,
            }
            for row in list_releases(state.store)
        ]

    return {"object": "list", "data": await asyncio.to_thread(work)}


async def _keys(state: GatewayState, request: Request) -> Any:
    return {"object": "list", "data": await asyncio.to_thread(list_keys, state.store)}


async def _new_key(state: GatewayState, request: Request) -> Any:
    body = await read_json(request)
    name, role = str(body.get("name") or ""), str(body.get("role") or "client")
    secret = await asyncio.to_thread(create_key, state.store, name, role)
    if state.refresh is not None:
        await state.refresh()
    return {"name": name, "role": role, "key": secret}


async def _drop_key(state: GatewayState, request: Request) -> Any:
    name = request.path_params["name"]
    await asyncio.to_thread(revoke_key, state.store, name)
    if state.refresh is not None:
        await state.refresh()
    return {"name": name, "active": False}
