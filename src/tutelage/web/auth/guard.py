"""The middleware in front of everything: foreign requests, strangers and their websockets.

Without a session only the forms for signing in are answered. It decides nothing about roles:
each page says whom it is for.
"""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tutelage.web.auth import headers, origin
from tutelage.web.auth.sessions import Gate

_OPEN = ("/welcome/", "/auth/")
_FORMS = ("/login", "/logout")
_SOCKET = "/_nicegui_ws/"
_POLICY_VIOLATION = 1008  # why a websocket is closed


class Guard:
    """Wraps the application: `Guard(app, gate)`."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or websocket, or let the application do it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        answer = self._refusal(connection)
        if scope["type"] == "websocket":
            await self._websocket(connection, answer, receive, send)
            return

        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {})["nonce"] = nonce

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = headers.with_policy(message["headers"], scope["path"], nonce)
            await send(message)

        await (answer or self._app)(scope, receive, tell)

    def _refusal(self, connection: HTTPConnection) -> Response | None:
        """Return the answer to whoever may not come in, or None."""
        reason = origin.refusal(connection, self._gate.web)
        if reason is not None:
            return PlainTextResponse(f"{reason}\n", 403)
        path = connection.url.path
        if path.startswith(_SOCKET) and not self._gate.owns_page(connection):
            return PlainTextResponse("this page was made for another session\n", 403)
        if path in _FORMS or path.startswith(_OPEN) or self._gate.who(connection) is not None:
            return None
        reads = connection.scope.get("method") in ("GET", "HEAD")
        if reads and "text/html" in connection.headers.get("accept", ""):
            query = f"?{connection.url.query}" if connection.url.query else ""
            return RedirectResponse(f"/login?next={quote(path + query, safe='')}", 303)
        return JSONResponse({"error": "SignedOut", "what": "you are signed out"}, 401)

    async def _websocket(
        self, connection: HTTPConnection, answer: Response | None, receive: Receive, send: Send
    ) -> None:
        """Let a websocket through, as long as the session holds that it was opened with."""
        if answer is not None:
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return

        async def watch() -> Any:
            message = await receive()
            if message["type"] == "websocket.receive" and self._gate.who(connection) is None:
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
                return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION}
            return message

        await self._app(connection.scope, watch, send)
