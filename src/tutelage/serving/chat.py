"""POST /v1/chat/completions: one request from its arrival to its record.

The release's prompt goes in front, control tokens in what the client sent become inert, the
engine answers, guards look at both sides. When the client leaves, the engine's work is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from tutelage.serving.access.keys import caller_of
from tutelage.serving.guards.checking import Holdback
from tutelage.serving.state import GatewayState
from tutelage.serving.turn import Turn, answer_blocked
from tutelage.serving.wire.body import Share, read_json
from tutelage.serving.wire.fast_json import encode
from tutelage.serving.wire.http_protocol import WATCH
from tutelage.serving.wire.upstream import Piece
from tutelage.serving.wire.upstream_answer import broken
from tutelage.serving.wire.wire import (
    ChunkWriter,
    HttpError,
    completion_body,
    error_event,
    unknown_model,
)
from tutelage.serving.wire.wire_request import ChatRequest, parse_chat

CLIENT_LEFT = 499
_log = logging.getLogger(__name__)
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
    record, share = f"rec_{_new_id()}", state.room.share()
    try:
        caller = caller_of(request)
        if state.draining:
            raise _stopping()
        state.slots.require_room()  # before the body is read: a refusal must cost little
        asked = await _parsed(await read_json(request, share))
        if not caller.sees(asked.model) or asked.model not in state.router.entries:
            raise unknown_model(asked.model, caller.visible(state.router.entries))
        pick = state.router.pick(asked.model, asked.user or record)
    except HttpError as error:
        share.free()
        state.telemetry.refused.labels(str(error.status)).inc()
        return error.response({"x-request-id": record})
    except BaseException:
        share.free()
        raise
    return _Exchange(Turn(state, asked, pick, caller, record, started, request.headers), share)


async def _parsed(body: Mapping[str, Any]) -> ChatRequest:
    """Return the checked request; a JSON Schema takes long to check, so others do not wait."""
    if "response_format" in body:
        return await asyncio.to_thread(parse_chat, body)
    return parse_chat(body)


async def answer_chat(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one chat request, as an ASGI application."""
    try:
        answer = await chat(Request(scope, receive, send))
    except Exception:
        _log.exception("a request could not be read")
        answer = _failed().response()
    await answer(scope, receive, send)


def _stopping() -> HttpError:
    return HttpError(503, "The gateway is stopping.", code="stopping", retry_after=5)


def _failed() -> HttpError:
    return HttpError(500, "The gateway failed on this request.", code="internal_error")


class _Exchange:
    """The ASGI side of a turn: answers, and stops the work when the client leaves."""

    def __init__(self, turn: Turn, share: Share) -> None:
        self.state, self.turn, self._share = turn.state, turn, share
        self._begun = self._left = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        turn, inflight = self.turn, self.state.inflight
        release = turn.pick.profile.id
        inflight[release] += 1
        me = asyncio.current_task()

        def leave() -> None:
            """Stop the work, unless it is done: then the connection only ends as it should."""
            if me is not None and not turn.logged:
                self._left = True
                me.cancel()

        forget = _on_gone(scope, receive, leave)
        try:
            await self._work(scope, receive, send)
        except asyncio.CancelledError:
            if not (self._left or turn.logged):  # somebody else cancelled: the gateway stops
                turn.log(503, "the gateway was stopped")
                await self._refuse(_stopping(), scope, receive, send)
            if me is not None:
                me.uncancel()
        except Exception as error:
            await turn.end(500, type(error).__name__)
            _log.exception("the request %s failed", turn.record)
            await self._refuse(_failed(), scope, receive, send)
        finally:
            forget()
            try:
                await turn.end(CLIENT_LEFT)
            finally:
                turn.log(CLIENT_LEFT)
                self._share.free()
                inflight[release] -= 1

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        turn = self.turn
        try:
            await turn.admit()
            await turn.check_request()
            async with self.state.slots as taken:
                if turn.asked.stream:
                    await _Streaming(self, send).run()
                else:
                    await self._whole(send)
            self.state.slots.learn(time.perf_counter() - taken)
        except HttpError as error:
            await turn.end(error.status, error.message)
            await self._refuse(error, scope, receive, send)

    async def _refuse(self, error: HttpError, scope: Scope, receive: Receive, send: Send) -> None:
        if self._begun:
            await _send_event(send, error_event(error), last=True)
        else:
            await error.response(self.turn.headers())(scope, receive, send)

    async def _whole(self, send: Send) -> None:
        turn = self.turn
        answer = await self.state.upstream.complete(turn.engine_body())
        turn.take(answer)
        await turn.check_response()
        await turn.end(200)
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if turn.calls:
            message |= {"content": answer.text or None, "tool_calls": turn.calls}
        body = completion_body(
            turn.record,
            turn.pick.deployment,
            message,
            turn.finish_reason,
            turn.usage,
            logprobs=answer.logprobs,
            fingerprint=turn.fingerprint,
        )
        data = encode(body)
        kind, size = (b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))
        self._begun = True
        headers = [kind, size, *_raw(turn.headers())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _send_event(send, data, last=True)

    async def begin(self, send: Send) -> None:
        """Send the head of a stream, once."""
        if self._begun:
            return
        self._begun = True
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *_raw(self.turn.headers()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


class _Streaming:
    """Passes pieces on as they come, as far as the guards allow; the rest at the end."""

    def __init__(self, exchange: _Exchange, send: Send) -> None:
        turn = exchange.turn
        self.exchange, self.turn, self._send = exchange, turn, send
        self._hold = Holdback(turn.pick.profile.guards, turn.checking)
        self._logprobs: list[Any] = []  # of text that is not sent yet
        self._first = True
        self._writer = ChunkWriter(
            turn.record,
            turn.pick.deployment,
            turn.fingerprint,
            with_usage=turn.asked.include_usage,
        )

    async def run(self) -> None:
        """Stream the answer; raise HttpError, also after some of it was sent."""
        turn = self.turn
        async with aclosing(turn.state.upstream.stream(turn.engine_body())) as pieces:
            async for together in pieces:
                await self._pass(together)
        if not turn.finish_reason:
            raise broken("the stream ended without a finish_reason")
        await turn.check_response()
        await turn.end(200)
        await self._rest()
        end = self._writer.chunk({}, turn.finish_reason)
        if turn.asked.include_usage:
            end += self._writer.usage(turn.usage)
        await self.exchange.begin(self._send)
        await _send_event(self._send, end + b"data: [DONE]\n\n", last=True)

    async def _pass(self, pieces: list[Piece]) -> None:
        """Take what came together, and send what may be sent of it."""
        events, why = b"", None
        for piece in pieces:
            self.turn.take(piece)
            event, why = self._event(piece)
            events += event
            if why is not None:
                break
        if events:
            await self._send_events(events)
        if why is not None:
            await self.turn.check_response()  # the record keeps what every guard says
            raise answer_blocked(why)

    def _event(self, piece: Piece) -> tuple[bytes, str | None]:
        """Return the event of a piece, if it has one now, and why no more may follow."""
        text, why = self._hold.push(piece.text) if piece.text else ("", None)
        if why is not None:
            return b"", why
        delta: dict[str, Any] = {"content": text} if text else {}
        if self._hold.holds:
            self._logprobs += (piece.logprobs or {}).get("content") or []
            return self._chunk(delta) if text else b"", None
        if piece.tool_calls:
            delta["tool_calls"] = piece.tool_calls
        if delta or piece.logprobs:
            return self._chunk(delta, piece.logprobs), None
        return b"", None

    async def _rest(self) -> None:
        """Send what was held back."""
        if not self._hold.holds:
            return
        delta: dict[str, Any] = {}
        text = self._hold.rest()
        if text:
            delta["content"] = text
        if self.turn.calls:
            delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(self.turn.calls)]
        if delta:
            logprobs = {"content": self._logprobs} if self._logprobs else None
            await self._send_events(self._chunk(delta, logprobs))

    def _chunk(self, delta: dict[str, Any], logprobs: Any = None) -> bytes:
        if self._first:
            self._first = False
            delta = {"role": "assistant", "content": None, **delta}
        return self._writer.chunk(delta, None, logprobs)

    async def _send_events(self, events: bytes) -> None:
        await self.exchange.begin(self._send)
        await _send_event(self._send, events)


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]


async def _send_event(send: Send, data: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": not last})


def _on_gone(scope: Scope, receive: Receive, leave: Callable[[], None]) -> Callable[[], None]:
    """Call `leave` when the client goes; return what ends the watch.

    Our own protocol tells without a task; of another server the messages are read.
    """
    watch: Callable[[Callable[[], None] | None], None] | None = scope.get(WATCH)
    if watch is not None:
        watch(leave)
        return lambda: watch(None)
    gone = asyncio.create_task(_client_gone(receive))
    gone.add_done_callback(lambda task: None if task.cancelled() else leave())

    def forget() -> None:
        gone.cancel()

    return forget


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
