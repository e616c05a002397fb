"""Users' rights over HTTP: what is held of one, forgetting them, who was forgotten. Admins only."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from tutelage.serving.admin_guard import Handler, guarded
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.body import read_json
from tutelage.serving.wire.wire import HttpError
from tutelage.workflows.context import Context
from tutelage.workflows.feedback.forget import erasures, forget, look_up

_PATH = "/admin/privacy"


def privacy_routes(ctx: Context) -> list[Route]:
    """Return the routes over a project; they need the role admin."""

    async def show(state: GatewayState, request: Request) -> Any:
        user, _ = await _asked(request)
        return (await asyncio.to_thread(look_up, ctx, user)).as_dict()

    async def erase(state: GatewayState, request: Request) -> Any:
        user, reason = await _asked(request)
        await asyncio.to_thread(_settle, state)
        done = await asyncio.to_thread(lambda: forget(ctx, user, reason=reason))
        return done.as_dict()

    async def told(state: GatewayState, request: Request) -> Any:
        return {"object": "list", "data": await asyncio.to_thread(erasures, ctx)}

    return [
        _route("show", show, "POST"),
        _route("forget", erase, "POST"),
        _route("erasures", told, "GET"),
    ]


def _route(name: str, handler: Handler, method: str) -> Route:
    return Route(f"{_PATH}/{name}", guarded("admin", handler), methods=[method])


async def _asked(request: Request) -> tuple[str, str]:
    """Return the user and the reason that a body names; raise HttpError 400."""
    body = await read_json(request)
    user, reason = body.get("user"), body.get("reason", "")
    if not isinstance(user, str) or not user.strip() or not isinstance(reason, str):
        raise HttpError(400, 'Name the user: {"user": "their key"}.', code="invalid_user")
    return user, reason


def _settle(state: GatewayState) -> None:
    """Bring this gateway's records into the store, and empty its write-ahead file."""
    state.log.flush()
    if state.log.spill is not None:
        state.log.spill.done((), idle=True)
