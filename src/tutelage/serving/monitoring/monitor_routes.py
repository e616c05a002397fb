"""What an operator sees and does about events and alerts over HTTP, under /admin."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from tutelage.core.artifact import utc_now
from tutelage.core.durations import seconds
from tutelage.release.routes import require_place
from tutelage.serving.admin_guard import author_of, guarded
from tutelage.serving.monitoring import event_kinds
from tutelage.serving.monitoring.alert_store import (
    list_alerts,
    list_notices,
    list_silences,
    silence,
    unsilence,
)
from tutelage.serving.monitoring.alerts import require_rule, rules_of
from tutelage.serving.monitoring.events import copy_moves, read_events
from tutelage.serving.monitoring.monitor_views import (
    alert_view,
    event_view,
    notice_view,
    rule_views,
    silence_view,
)
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.body import read_json, require_fields
from tutelage.serving.wire.wire import HttpError
from tutelage.store.base import Store

_MOST = 1000  # rows of one answer
_SILENCE = ("rule", "for", "deployment", "reason")


def monitor_routes() -> list[Route]:
    """Return the routes of events and alerts."""
    return [
        Route("/admin/events", guarded("operator", _events)),
        Route("/admin/alerts", guarded("operator", _alerts)),
        Route("/admin/alerts/rules", guarded("operator", _rules)),
        Route("/admin/alerts/notices", guarded("operator", _notices)),
        Route("/admin/alerts/silences", guarded("operator", _silences)),
        Route("/admin/alerts/silences", guarded("operator", _silence), methods=["POST"]),
        Route("/admin/alerts/silences/{rule}", guarded("operator", _end), methods=["DELETE"]),
    ]


async def _events(state: GatewayState, request: Request) -> Any:
    asked = request.query_params
    limit, after = _number(asked, "limit", 100), _number(asked, "after", 0)
    kind = asked.get("kind")
    if kind is not None and (fix := event_kinds.unknown(kind)):
        raise HttpError(400, f"There is no event {kind!r}. {fix}.", param="kind")

    def work() -> list[dict[str, Any]]:
        copy_moves(state.store)
        rows = read_events(
            state.store,
            after=after,
            kind=kind,
            deployment=asked.get("deployment"),
            limit=limit,
        )
        return [event_view(row) for row in rows]

    return _list(await asyncio.to_thread(work))


async def _alerts(state: GatewayState, request: Request) -> Any:
    ended = request.query_params.get("state") == "all"
    limit = _number(request.query_params, "limit", 50)
    rows = await asyncio.to_thread(list_alerts, state.store, ended=ended, limit=limit)
    return _list([alert_view(row) for row in rows])


async def _rules(state: GatewayState, request: Request) -> Any:
    return _list(rule_views(rules_of(state.project.alerts)))


async def _notices(state: GatewayState, request: Request) -> Any:
    limit = _number(request.query_params, "limit", 50)
    rows = await asyncio.to_thread(list_notices, state.store, limit)
    return _list([notice_view(row) for row in rows])


async def _silences(state: GatewayState, request: Request) -> Any:
    rows = await asyncio.to_thread(list_silences, state.store)
    return _list([silence_view(row) for row in rows])


async def _silence(state: GatewayState, request: Request) -> Any:
    body = await read_json(request)
    require_fields(body, _SILENCE, "A silence")
    rule, length = body.get("rule"), body.get("for", "1h")
    if not isinstance(rule, str) or not rule:
        raise HttpError(400, 'Name the rule to silence: {"rule": "error-rate"}.', param="rule")
    require_rule(state.project.alerts, rule)
    author = author_of(request)
    reason = str(body.get("reason") or "")[:500]
    deployment = body.get("deployment")
    try:
        until = utc_now() + timedelta(seconds=seconds(str(length)))
    except (ValueError, OverflowError) as error:
        raise HttpError(400, f"{str(error)[0].upper()}{str(error)[1:]}.", param="for") from error
    where = str(deployment) if deployment else None
    await asyncio.to_thread(require_place, state.store, where, state.project.name)
    return await asyncio.to_thread(_put, state.store, rule, until, where, author, reason)


def _put(
    store: Store, rule: str, until: Any, deployment: str | None, author: str, reason: str
) -> dict[str, Any]:
    return silence_view(
        silence(store, rule, until, deployment=deployment, author=author, reason=reason)
    )


async def _end(state: GatewayState, request: Request) -> Any:
    rule = request.path_params["rule"]
    ended = await asyncio.to_thread(unsilence, state.store, rule)
    if not ended:
        raise HttpError(404, f"No silence of {rule!r} is in force.", code="not_found")
    return {"rule": rule, "ended": ended}


def _number(asked: Any, name: str, default: int) -> int:
    text = asked.get(name)
    if text is None:
        return default
    if not text.isdigit() or int(text) > 2**31:
        raise HttpError(400, f"{name} must be a whole number.", param=name)
    return min(int(text), _MOST) if name == "limit" else int(text)


def _list(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": rows}
