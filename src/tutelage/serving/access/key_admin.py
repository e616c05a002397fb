"""API keys, use and budgets over HTTP, for operators and admins.

Every database call runs in a worker thread, off the hot path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from tutelage.core.artifact import utc_now
from tutelage.core.durations import seconds
from tutelage.core.errors import DataError
from tutelage.serving.access.budgets import all_accounts, levels
from tutelage.serving.access.key_store import (
    create_key,
    list_keys,
    revoke_key,
    rotate_key,
    update_key,
)
from tutelage.serving.access.pricing import Pricing
from tutelage.serving.access.usage import read_usage, report
from tutelage.serving.access.usage_span import span
from tutelage.serving.admin_guard import guarded
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.body import read_json
from tutelage.serving.wire.wire import HttpError

_FIELDS = (
    "role", "expires_at", "deployments", "requests_per_minute", "tokens_per_minute", "budgets",
)  # fmt: skip


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
        with _as_400():
            name, limits = str(body.pop("name", "")), _limits(state, body)
            role = str(limits.pop("role", "client"))
            secret = create_key(state.store, name, role, **limits)
        return {**_one(state, name), "key": secret}

    return await _then_refresh(state, work)


async def _update(state: GatewayState, request: Request) -> Any:
    name, body = request.path_params["name"], await read_json(request)

    def work() -> dict[str, Any]:
        update_key(state.store, name, {})  # 404 if there is none
        with _as_400():
            return update_key(state.store, name, _limits(state, body))

    return await _then_refresh(state, work)


async def _rotate(state: GatewayState, request: Request) -> Any:
    name = request.path_params["name"]
    empty = request.headers.get("content-length", "0") == "0"
    body = {} if empty else await read_json(request)
    with _as_400():
        grace = _length(body.get("grace", "0s"))

    def work() -> dict[str, Any]:
        secret = rotate_key(state.store, name, grace)
        return {**_one(state, name), "key": secret}

    return await _then_refresh(state, work)


async def _revoke(state: GatewayState, request: Request) -> Any:
    name = request.path_params["name"]

    def work() -> dict[str, Any]:
        revoke_key(state.store, name)
        return _one(state, name)

    return await _then_refresh(state, work)


async def _usage(state: GatewayState, request: Request) -> Any:
    asked = request.query_params
    with _as_400():
        since, until = span(asked.get("since"), asked.get("until"))
    by = [field for field in (asked.get("by") or "deployment,release").split(",") if field]
    pricing = Pricing(state.project)

    def work() -> dict[str, Any]:
        lines = read_usage(state.store, since, until)
        for name in ("key", "deployment"):
            wanted = asked.get(name)
            lines = [line for line in lines if wanted in (None, getattr(line, name))]
        with _as_400():
            found = report(state.store, pricing, lines, by)
        return {"since": since, "until": until, **found}

    return await asyncio.to_thread(work)


async def _budgets(state: GatewayState, request: Request) -> Any:
    accounts = all_accounts(state.project.budgets, state.keys.callers(), list(state.router.entries))
    return {"object": "list", "data": await asyncio.to_thread(levels, state.store, accounts)}


@contextmanager
def _as_400() -> Iterator[None]:
    """Tell a client that what it sent makes no sense."""
    try:
        yield
    except DataError as error:
        raise HttpError(400, error.sentence(), code="invalid_value") from error


def _limits(state: GatewayState, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body's limits; `expires` is a length of time from now."""
    found = dict(body)
    if "expires" in found:
        length = found.pop("expires")
        found["expires_at"] = None
        if length is not None:
            found["expires_at"] = utc_now() + timedelta(seconds=_length(length))
    unknown = [name for name in found if name not in _FIELDS]
    if unknown:
        raise DataError(
            f"a key has no {unknown[0]!r}", fix=f"Known: name, expires, {', '.join(_FIELDS)}"
        )
    _need_prices(state, found.get("budgets"))
    return found


def _length(text: Any) -> float:
    try:
        return seconds(str(text))
    except ValueError as error:
        raise DataError(str(error)) from None


def _need_prices(state: GatewayState, budgets: Any) -> None:
    if Pricing(state.project).known or not isinstance(budgets, list):
        return
    if any(isinstance(one, dict) and one.get("unit") == "cost" for one in budgets):
        raise DataError(
            "a budget limits the cost, and nothing has a price",
            fix="Add prices.tokens or prices.hour to tutelage.yaml",
        )


def _one(state: GatewayState, name: str) -> dict[str, Any]:
    return next(key for key in list_keys(state.store) if key["name"] == name)


async def _then_refresh(state: GatewayState, work: Callable[[], Any]) -> Any:
    """Do `work` beside the loop; then let this gateway know of it at once."""
    result = await asyncio.to_thread(work)
    if state.refresh is not None:
        await state.refresh()
    return result
