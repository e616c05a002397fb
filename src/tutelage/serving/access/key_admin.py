"""API keys, use and budgets over HTTP, for operators and admins.

Every database call runs in a worker thread, off the hot path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from tutelage.core.errors import DataError
from tutelage.serving.access.budgets import all_accounts, levels
from tutelage.serving.access.key_store import (
    CHANGEABLE,
    create_key,
    get_key,
    list_keys,
    revoke_key,
    rotate_key,
    update_key,
)
from tutelage.serving.access.key_terms import length_s, require_prices, with_expiry
from tutelage.serving.access.pricing import Pricing
from tutelage.serving.access.usage import report
from tutelage.serving.access.usage_span import span
from tutelage.serving.admin_guard import guarded
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.body import read_json, require_fields


def key_routes() -> list[Route]:
    """Return the routes for keys, use and budgets."""
    return [
        Route("/admin/keys", guarded("admin", _keys)),
        Route("/admin/keys", guarded("admin", _create), methods=["POST"]),
        Route("/admin/keys/{name}", guarded("admin", _update), methods=["PATCH"]),
        Route("/admin/keys/{name}", guarded("admin", _revoke), methods=["DELETE"]),
        Route("/admin/keys/{name}/rotate", guarded("admin", _rotate), methods=["POST"]),
        Route("/admin/usage", guarded("operator", _usage)),
        Route("/admin/budgets", guarded("operator", _budgets)),
    ]


async def _keys(state: GatewayState, request: Request) -> Any:
    return {"object": "list", "data": await asyncio.to_thread(list_keys, state.store)}


async def _create(state: GatewayState, request: Request) -> Any:
    body = await read_json(request)

    def work() -> dict[str, Any]:
        name, limits = str(body.pop("name", "")), _limits(state, body)
        role = str(limits.pop("role", "client"))
        secret = create_key(state.store, name, role, **limits)
        return {**get_key(state.store, name), "key": secret}

    return await _then_refresh(state, work)


async def _update(state: GatewayState, request: Request) -> Any:
    name, body = request.path_params["name"], await read_json(request)

    def work() -> dict[str, Any]:
        get_key(state.store, name)  # that there is none comes before what is wrong with the body
        return update_key(state.store, name, _limits(state, body))

    return await _then_refresh(state, work)


async def _rotate(state: GatewayState, request: Request) -> Any:
    name = request.path_params["name"]
    empty = request.headers.get("content-length", "0") == "0"
    body = {} if empty else await read_json(request)
    require_fields(body, ("grace",), "A new secret")
    grace = length_s(body.get("grace", "0s"))

    def work() -> dict[str, Any]:
        secret = rotate_key(state.store, name, grace)
        return {**get_key(state.store, name), "key": secret}

    return await _then_refresh(state, work)


async def _revoke(state: GatewayState, request: Request) -> Any:
    name = request.path_params["name"]

    def work() -> dict[str, Any]:
        revoke_key(state.store, name)
        return get_key(state.store, name)

    return await _then_refresh(state, work)


async def _usage(state: GatewayState, request: Request) -> Any:
    asked = request.query_params
    by = [field for field in (asked.get("by") or "deployment,release").split(",") if field]
    only = {name: asked.get(name) for name in ("key", "deployment")}

    def work() -> dict[str, Any]:
        ends = span(asked.get("since"), asked.get("until"))
        return report(state.store, Pricing(state.project), ends, by, **only)

    return await asyncio.to_thread(work)


async def _budgets(state: GatewayState, request: Request) -> Any:
    accounts = all_accounts(state.project.budgets, state.keys.callers(), list(state.router.entries))
    return {"object": "list", "data": await asyncio.to_thread(levels, state.store, accounts)}


def _limits(state: GatewayState, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body's limits; `expires` is a length of time from now."""
    found = with_expiry(body)
    unknown = [name for name in found if name not in CHANGEABLE]
    if unknown:
        raise DataError(
            f"a key has no {unknown[0]!r}", fix=f"Known: name, expires, {', '.join(CHANGEABLE)}"
        )
    require_prices(state.project, found.get("budgets"))
    return found


async def _then_refresh(state: GatewayState, work: Callable[[], Any]) -> Any:
    """Do `work` beside the loop; then let this gateway know of it at once."""
    result = await asyncio.to_thread(work)
    if state.refresh is not None:
        await state.refresh()
    return result
