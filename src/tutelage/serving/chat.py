"""POST /v1/chat/completions: one request from its arrival to its record.

The release's prompt goes in front, control tokens in what the client sent become inert, the
engine answers, guards look at both sides. When the client leaves, the engine's work is cancelled.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tutelage.serving.body import read_json
from tutelage.serving.state import GatewayState
from tutelage.serving.turn import Turn
from tutelage.serving.wire import (
    HttpError,
    chunk_event,
    completion_body,
    error_event,
    json_response,
    parse_chat,
    usage_event,
)

CLIENT_LEFT = 499


_random = bytearray()


def _new_id() -> str:
    """Return 24 unguessable hex digits; the system is asked for 256 of them at once."""
    if not _random:
        _random.extend(secrets.token_bytes(12 * 256))
    taken = bytes(_random[-12:])
    del _random[-12:]
    return taken.hex()


async def chat(request: Request) -> Any:
    """Answer one chat request."""
    state: GatewayState = request.app.state.gateway
    started = time.perf_counter()
    try:
        caller = state.keys.identify(request.headers)
        if state.draining:
            raise HttpError(503, "The gateway is stopping.", code="stopping", retry_after=5)
        asked = parse_chat(await read_json(request))
        record = f"rec_{_new_id()}"
        pick = state.router.pick(asked.model, asked.user or record)
    except HttpError as error:
        state.telemetry.refused.labels(str(error.status)).inc()
        return error.response()
    return _Exchange(state, Turn(state, asked, pick, caller, record, started, request.headers))


class _Exchange:
    """The ASGI side of a turn: answers, and stops the work when the client leaves."""

    def __init__(self, state: GatewayState, turn: Turn) -> None:
        self.state, self.turn = state, turn
        self._begun = self._left = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        release = self.turn.pick.profile.id
        self.state.inflight[release] += 1
        gone = asyncio.create_task(_client_gone(receive))
        me = asyncio.current_task()

        def leave(task: asyncio.Task[None]) -> None:
            """Stop the work, unless it is done: then the connection only ends as it should."""
            if me is not None and not self.turn.logged and not task.cancelled():
                self._left = True
                me.cancel()

        gone.add_done_callback(leave)
        try:
            await self._work(scope, receive, send)
        except asyncio.CancelledError:
            if me is None or not self._left or me.uncancel() > 0:
                raise  # somebody else cancelled: the gateway is being stopped
        except Exception as error:
            self.turn.log(500, type(error).__name__)
            raise
        finally:
            self.turn.log(CLIENT_LEFT)
            gone.cancel()
            self.state.inflight[release] -= 1

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        turn = self.turn
        try:
            await turn.admit()
            turn.check_request()
            async with self.state.slots as taken:
                if turn.asked.stream:
                    await self._stream(send)
                else:
                    await self._whole(scope, receive, send)
            self.state.slots.learn(time.perf_counter() - taken)
        except HttpError as error:
            turn.log(error.status, error.message)
            if self._begun:
                await _send_event(send, error_event(error), last=True)
            else:
                await error.response(turn.headers())(scope, receive, send)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        turn = self.turn
        answer = await self.state.upstream.complete(turn.engine_body())
        turn.parts.append(answer.text)
        turn.finish_reason, turn.usage = answer.finish_reason, answer.usage
        turn.check_response()
        turn.log(200)
        body = completion_body(
            turn.record, turn.pick.deployment, answer.text, answer.finish_reason, answer.usage
        )
        response: Response = json_response(body, headers=turn.headers())
        await response(scope, receive, send)

    async def _stream(self, send: Send) -> None:
        """Pass pieces on as they come; all at the end if a guard may hold the answer back."""
        turn, held = self.turn, self.turn.pick.profile.blocks
        async with aclosing(self.state.upstream.stream(turn.engine_body())) as pieces:
            async for piece in pieces:
                turn.usage = piece.usage or turn.usage
                turn.finish_reason = piece.finish_reason or turn.finish_reason
                if not piece.text:
                    continue
                if turn.first_token_ms is None:
                    turn.first_token_ms = (time.perf_counter() - turn.started) * 1000
                turn.parts.append(piece.text)
                if not held:
                    await self._send_text(send, piece.text)
        turn.finish_reason = turn.finish_reason or "stop"
        turn.check_response()
        turn.log(200)
        if held and turn.text:
            await self._send_text(send, turn.text)
        await self._finish(send)

    async def _send_text(self, send: Send, text: str) -> None:
        turn = self.turn
        delta: dict[str, Any] = {"content": text}
        if not self._begun:
            delta = {"role": "assistant", **delta}
            await self._begin(send)
        name = turn.pick.deployment
        await _send_event(send, chunk_event(turn.record, name, turn.created, delta))

    async def _begin(self, send: Send) -> None:
        self._begun = True
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *((k.encode(), v.encode()) for k, v in self.turn.headers().items()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _finish(self, send: Send) -> None:
        turn, name = self.turn, self.turn.pick.deployment
        if not self._begun:
            await self._begin(send)
        end = chunk_event(turn.record, name, turn.created, {}, turn.finish_reason)
        if turn.asked.include_usage:
            end += usage_event(turn.record, name, turn.created, turn.usage)
        await _send_event(send, end + b"data: [DONE]\n\n", last=True)


async def _send_event(send: Send, data: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": not last})


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
