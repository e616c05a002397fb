"""POST /v1/chat/completions: one request from its arrival to its record.

The release's prompt goes in front, control tokens in what the client sent become inert, the
engine answers, guards look at both sides. When the client leaves, the engine's work is cancelled.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tutelage.core.artifact import utc_now
from tutelage.core.example import Message, normalise
from tutelage.inference.chat import as_dicts, conversation
from tutelage.serving.keys import Caller
from tutelage.serving.request_log import Redactor, safe_text
from tutelage.serving.router import Pick
from tutelage.serving.state import GatewayState
from tutelage.serving.wire import (
    MAX_BODY,
    ChatRequest,
    HttpError,
    chunk_event,
    completion_body,
    error_event,
    json_response,
    parse_chat,
    parse_json,
    usage_event,
)

CLIENT_LEFT = 499


async def read_json(request: Request) -> dict[str, Any]:
    """Return the body's JSON object; raise HttpError 413 or 400.

    Of a body that is too large some is read and dropped, so that the client hears why.
    """
    raw, read = b"", 0
    async for chunk in request.stream():
        read += len(chunk)
        if read <= MAX_BODY:
            raw += chunk
        elif read > 4 * MAX_BODY:
            break
    if read > MAX_BODY:
        limit = f"The body is larger than {MAX_BODY // 2**20} MiB."
        raise HttpError(413, limit, code="too_large")
    return parse_json(raw)


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
    return _Exchange(state, _Turn(state, asked, pick, caller, record, started))


@dataclass
class _Turn:
    """One request on its way, and what its record will hold."""

    state: GatewayState
    asked: ChatRequest
    pick: Pick
    caller: Caller
    record: str
    started: float
    created: int = field(default_factory=lambda: int(time.time()))
    parts: list[str] = field(default_factory=list)
    finish_reason: str = ""
    usage: Mapping[str, int] = field(default_factory=dict)
    first_token_ms: float | None = None
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    logged: bool = False

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def engine_body(self) -> dict[str, Any]:
        """Return the request as the engine gets it."""
        asked, profile = self.asked, self.pick.profile
        turns = conversation(asked.messages, profile.prompt, profile.specials)
        body = {**profile.settings, "messages": as_dicts(turns)}
        body["max_tokens"] = min(asked.max_tokens or profile.max_tokens, profile.max_tokens)
        stop = [*profile.stop, *asked.stop]
        if stop:
            body["stop"] = stop
        if asked.response_format and not profile.has_schema:
            body["response_format"] = asked.response_format
        return body

    def headers(self) -> dict[str, str]:
        """Return which release answered, and which parameters its decoding overrode."""
        found = {
            "x-tutelage-release": self.pick.profile.id[:12],
            "x-tutelage-arm": self.pick.arm,
        }
        if self.asked.ignored:
            found["x-tutelage-ignored"] = ",".join(self.asked.ignored)
        return found

    def check_request(self) -> None:
        """Let the guards see the request; raise HttpError if one blocks it."""
        for active in self.pick.profile.guards:
            why = active.guard.check_request(self.asked.messages)
            self._note(f"{active.name}.request", why)
            if why is not None:
                self.state.telemetry.flagged(active.name, active.action)
                if active.action == "block":
                    raise HttpError(400, f"The request was blocked: {why}.", code="request_blocked")

    def check_response(self) -> None:
        """Let the guards see the answer; raise HttpError if one blocks it."""
        blocked = None
        for active in self.pick.profile.guards:
            why = active.guard.check_response(self.text, self.finish_reason)
            self._note(active.name, why)
            if why is not None:
                self.state.telemetry.flagged(active.name, active.action)
                if active.action == "block":
                    blocked = blocked or why
        if blocked is not None:
            raise HttpError(422, f"The answer was held back: {blocked}.", code="answer_blocked")

    def _note(self, name: str, why: str | None) -> None:
        if why is None:
            self.checks.setdefault(name, {"ok": True, "why": ""})
        else:
            self.checks[name] = {"ok": False, "why": why}

    def log(self, status: int, error: str | None = None) -> None:
        """Count the request and queue its record, once."""
        if self.logged:
            return
        self.logged = True
        latency_ms = (time.perf_counter() - self.started) * 1000
        pick = self.pick
        prompt_tokens = self.usage.get("prompt_tokens", 0)
        answer_tokens = self.usage.get("completion_tokens", 0 if self.usage else len(self.parts))
        self.state.telemetry.finished(
            (pick.deployment, pick.profile.id, pick.arm),
            status,
            latency_ms,
            self.first_token_ms,
            (prompt_tokens, answer_tokens),
        )
        group = group_of(self.asked, self.state.project.data.splits.group)
        clean = self.state.redactor
        row = {
            "id": self.record,
            "deployment": pick.deployment,
            "release": pick.profile.id,
            "rollout": pick.rollout,
            "step": pick.step,
            "arm": pick.arm,
            "user": _user(self.asked.user, clean),
            "key_name": self.caller.name,
            "split": self.state.side(group),
            "group_key": hashlib.sha256(group.encode()).hexdigest(),
            "messages": [
                {"role": m.role, "content": clean(safe_text(m.content))}
                for m in self.asked.messages
            ],
            "response": clean(safe_text(self.text)),
            "finish_reason": self.finish_reason[:16] or "error",
            "status": status,
            "error": clean(error) if error else error,
            "latency_ms": latency_ms,
            "first_token_ms": self.first_token_ms,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": answer_tokens,
            "checks": {
                name: {**check, "why": clean(check["why"])} for name, check in self.checks.items()
            },
            "at": utc_now(),
        }
        self.state.log.record(row)


class _Exchange:
    """The ASGI side of a turn: answers, and stops the work when the client leaves."""

    def __init__(self, state: GatewayState, turn: _Turn) -> None:
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


def group_of(asked: ChatRequest, field_name: str | None) -> str:
    """Return what keeps a row on one side of the split: the group, the user or the input.

    The group is `metadata.group`, or the metadata field that tutelage.yaml's splits.group names.
    """
    for name in (field_name, "group"):
        value = asked.metadata.get(name) if name else None
        if isinstance(value, (str, int)):
            return safe_text(str(value))
    if asked.user:
        return safe_text(asked.user)
    return input_group(asked.messages)


def input_group(messages: Sequence[Message]) -> str:
    """Return the normalised text of the user's side, the group of a row without one."""
    return normalise(safe_text("\n".join(m.content for m in messages if m.role != "system")))


def _user(user: str | None, clean: Redactor) -> str | None:
    """Return the user as the log keeps it: hashed if it is long or the redactor objects to it."""
    if user is None:
        return None
    user = safe_text(user)
    if len(user) <= 128 and clean(user) == user:
        return user
    return hashlib.sha256(user.encode()).hexdigest()
