"""The gateway as a Starlette application: OpenAI's endpoints, health, metrics, administration.

It composes; the work is in chat.py and admin.py. Feedback's routes are handed in, because
feedback sits above serving. Nothing on this path imports torch, transformers or mlflow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from tutelage.serving.access.keys import caller_of
from tutelage.serving.admin import admin_routes
from tutelage.serving.admin_guard import require_role
from tutelage.serving.chat import answer_chat, chat
from tutelage.serving.monitoring.telemetry import CONTENT_TYPE
from tutelage.serving.rollout_admin import rollout_routes
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.wire import HttpError, json_response, unknown_model

_CHAT = "/v1/chat/completions"
_PATH = 80  # characters of a wrong address that are repeated


def create_app(state: GatewayState, extra_routes: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the application over `state`, with `extra_routes` (feedback) in front of /admin."""
    routes: list[BaseRoute] = [
        Route(_CHAT, chat, methods=["POST"]),
        Route("/v1/models", _models),
        Route("/v1/models/{name}", _model),
        Route("/healthz", _healthz),
        Route("/readyz", _readyz),
        Route("/metrics", _metrics),
        *extra_routes,
        *admin_routes(),
        *rollout_routes(),
    ]
    app = _Gateway(
        routes=routes, exception_handlers={HTTPException: _http_error, Exception: _server_error}
    )
    app.router.redirect_slashes = False  # a redirect would repeat the client's Host header
    app.state.gateway = state
    return app


class _Gateway(Starlette):
    """Starlette, which what most requests ask for goes past: its layers cost as much as ours."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"] == _CHAT and scope["method"] == "POST":
            scope["app"] = self
            await answer_chat(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def _models(request: Request) -> Response:
    state: GatewayState = request.app.state.gateway
    try:
        known = caller_of(request).visible(state.router.entries)
    except HttpError as error:
        return error.response()
    return json_response({"object": "list", "data": [_card(name) for name in known]})


async def _model(request: Request) -> Response:
    state: GatewayState = request.app.state.gateway
    name = request.path_params["name"]
    try:
        known = caller_of(request).visible(state.router.entries)
        if name not in known:
            raise unknown_model(name, known)
    except HttpError as error:
        return error.response()
    return json_response(_card(name))


def _card(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tutelage"}


async def _healthz(request: Request) -> Response:
    return json_response({"status": "ok"})


async def _readyz(request: Request) -> Response:
    state: GatewayState = request.app.state.gateway
    if state.draining or not state.ready:
        return json_response({"status": "stopping" if state.draining else "starting"}, 503)
    silent, entries = state.silent(), state.router.entries
    down = bool(silent) and len(silent) == len(entries)
    body: dict[str, object] = {"status": "down" if down else "ready"}
    if _may_know(request):
        body["deployments"] = sorted(entries)
        body |= {"unanswered": sorted(silent)} if silent else {}
    return json_response(body, 503 if down else 200)


def _may_know(request: Request) -> bool:
    """Return whether a probe is told the deployments' names: without keys, or as operator."""
    state: GatewayState = request.app.state.gateway
    if not state.keys.required:
        return True
    if "authorization" not in request.headers:
        return False
    try:
        require_role(caller_of(request), "operator")
    except HttpError:
        return False
    return True


async def _metrics(request: Request) -> Response:
    state: GatewayState = request.app.state.gateway
    try:
        require_role(caller_of(request), "operator")  # it names other keys and what they use
    except HttpError as error:
        return error.response()
    text = await asyncio.to_thread(state.telemetry.text)  # milliseconds, with many keys
    return Response(text, media_type=CONTENT_TYPE)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = (error.headers if isinstance(error, HTTPException) else None) or {}
    place = request.url.path[:_PATH]
    message, code = "The request failed.", None
    if status == 404:
        message = (
            f"There is nothing at {place!r}. A client's base URL ends with /v1, and chats are at "
            f"POST {_CHAT}."
        )
        code = "not_found"
    elif status == 405:
        message, code = f"{place!r} takes {headers.get('Allow', 'another method')}.", "bad_method"
    return HttpError(status, message, code=code).response(headers)


async def _server_error(request: Request, error: Exception) -> Response:
    return HttpError(500, "The gateway failed on this request.", code="internal_error").response()
