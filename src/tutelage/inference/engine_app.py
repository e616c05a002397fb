"""The engine's HTTP face: OpenAI's chat completions for loaded releases, and admin calls.

For loopback only; keys, routing, logging and limits belong to the gateway in front.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tutelage.core.errors import TutelageError
from tutelage.inference.base import Usage
from tutelage.inference.engine_base import Ending, Piece
from tutelage.inference.engine_desk import Desk
from tutelage.inference.engine_memory import memory_mb
from tutelage.inference.engine_problem import RequestProblem
from tutelage.inference.engine_request import ChatRequest, parse_request
from tutelage.inference.engine_tools import joined_calls


def create_app(desk: Desk, on_ready: Callable[[], None] = lambda: None) -> Starlette:
    """Return the app; `on_ready` is called when it is about to accept requests."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        on_ready()
        yield
        await desk.close()

    handlers = Handlers(desk)
    return Starlette(
        lifespan=lifespan,
        exception_handlers={
            RequestProblem: _request_problem,
            TutelageError: _user_error,
            Exception: _server_error,
        },
        routes=[
            Route("/v1/chat/completions", handlers.chat, methods=["POST"]),
            Route("/v1/models", handlers.models),
            Route("/health", handlers.health),
            Route("/admin/load", handlers.load, methods=["POST"]),
            Route("/admin/unload", handlers.unload, methods=["POST"]),
            Route("/admin/stats", handlers.stats),
        ],
    )


class Handlers:
    """One method a route."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.started = int(time.time())

    async def chat(self, request: Request) -> Response:
        """Answer a chat request, whole or as server-sent events."""
        wanted = await _parsed(await _json(request))
        reply = _Reply(wanted)
        answer = self.desk.answer(wanted)
        if wanted.stream:
            return _EventStream(reply, answer)
        return await _unless_gone(request, _whole(reply, answer))

    async def models(self, request: Request) -> Response:
        """List the loaded releases."""
        entries = [
            {"id": r, "object": "model", "created": self.started, "owned_by": "tutelage"}
            for r in self.desk.releases
        ]
        return JSONResponse({"object": "list", "data": entries})

    async def health(self, request: Request) -> Response:
        """Say that the engine answers."""
        return JSONResponse({"status": "ok", "backend": self.desk.backend.name, "pid": os.getpid()})

    async def load(self, request: Request) -> Response:
        """Load {"release", "adapter"}."""
        body = await _json(request)
        release, adapter = body.get("release"), body.get("adapter")
        if not isinstance(release, str) or not release:
            raise RequestProblem("release must be the id to load")
        await self.desk.load(release, Path(adapter) if adapter else None)
        return JSONResponse({"releases": self.desk.releases})

    async def unload(self, request: Request) -> Response:
        """Unload {"release"}; answers when its requests have ended and its memory is free."""
        release = (await _json(request)).get("release")
        if not await self.desk.unload(str(release)):
            message = f"the release {release!r} is not loaded here"
            raise RequestProblem(message, status=404, code="model_not_found")
        return JSONResponse({"releases": self.desk.releases})

    async def stats(self, request: Request) -> Response:
        """Tell the releases, the memory in MB (proportional and resident), and the queue."""
        pss, rss = await asyncio.to_thread(memory_mb)
        return JSONResponse(
            {
                "releases": self.desk.releases,
                "backend": self.desk.backend.name,
                "pss_mb": pss,
                "rss_mb": rss,
                "queue": self.desk.queue,
            }
        )


class _Reply:
    """Writes OpenAI's response objects for one request."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": request.release,
        }

    def chunk(self, delta: dict[str, Any], **choice: Any) -> dict[str, Any]:
        entry = {"index": 0, "delta": delta, "finish_reason": None, **choice}
        return {**self.head, "object": "chat.completion.chunk", "choices": [entry]}

    def piece(self, piece: Piece) -> dict[str, Any]:
        logprobs = {"content": list(piece.logprobs)} if piece.logprobs else None
        delta: dict[str, Any] = (
            {"content": piece.text} if piece.text or not piece.tool_calls else {}
        )
        if piece.tool_calls:
            delta["tool_calls"] = list(piece.tool_calls)
        return self.chunk(delta, logprobs=logprobs)

    def tail(self, ending: Ending) -> list[dict[str, Any]]:
        last = [self.chunk({}, finish_reason=ending.finish_reason)]
        if self.request.include_usage:
            usage = {"choices": [], "usage": _usage(ending.usage)}
            last.append({**self.head, "object": "chat.completion.chunk", **usage})
        return last

    def whole(self, pieces: Sequence[Piece], ending: Ending) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls := joined_calls([call for piece in pieces for call in piece.tool_calls]):
            message |= {"content": text or None, "tool_calls": calls}
        logprobs = [entry for piece in pieces for entry in piece.logprobs]
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": ending.finish_reason,
            "logprobs": {"content": logprobs} if logprobs else None,
        }
        usage = _usage(ending.usage)
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": usage}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


async def _whole(reply: _Reply, answer: AsyncIterator[Piece | Ending]) -> Response:
    pieces: list[Piece] = []
    async for item in answer:
        if isinstance(item, Ending):
            return JSONResponse(reply.whole(pieces, item))
        pieces.append(item)
    raise RequestProblem("the answer broke off", status=500, code="broken_off")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Return what `work` gives, or stop it when the client has left."""
    answering = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request.receive))
    both: set[asyncio.Future[Any]] = {answering, leaving}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering
        return Response(status_code=499)
    finally:
        leaving.cancel()
        answering.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _EventStream(Response):
    """Sends an answer as server-sent events; a failure before the first one keeps its status."""

    def __init__(self, reply: _Reply, answer: AsyncIterator[Piece | Ending]) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self.reply = reply
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(scope, receive, send))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            leaving.cancel()
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await sending

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        items = aiter(self.answer)
        try:
            item: Piece | Ending | None = await anext(items, None)
            while isinstance(item, Piece) and not self._events(item):
                item = await anext(items, None)
        except RequestProblem as problem:
            await JSONResponse(problem.body(), problem.status)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._event(send, self.reply.chunk({"role": "assistant", "content": ""}))
        try:
            while item is not None:
                for event in self._events(item):
                    await self._event(send, event)
                item = await anext(items, None)
        except RequestProblem as problem:
            await self._event(send, problem.body())
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    def _events(self, item: Piece | Ending) -> list[dict[str, Any]]:
        if isinstance(item, Ending):
            return self.reply.tail(item)
        said = item.text or item.logprobs or item.tool_calls
        return [self.reply.piece(item)] if said else []

    @staticmethod
    async def _event(send: Send, event: dict[str, Any]) -> None:
        line = b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"
        await send({"type": "http.response.body", "body": line, "more_body": True})


async def _parsed(body: Any) -> ChatRequest:
    """Return the checked request; JSON Schemas take long to check, so others do not wait."""
    if isinstance(body, dict) and not {"response_format", "tools"}.isdisjoint(body):
        return await asyncio.to_thread(parse_request, body)
    return parse_request(body)


async def _json(request: Request) -> Any:
    """Return the body's value; half a pair of surrogates, which no engine takes, is replaced."""
    raw = await request.body()
    try:
        value = json.loads(raw)
        if b"\\ud" in raw or b"\\uD" in raw:
            text = json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
            value = json.loads(text.decode("utf-16-le", "replace"))
    except (ValueError, RecursionError) as error:
        raise RequestProblem("the body is not JSON") from error
    return value


async def _request_problem(request: Request, error: Exception) -> Response:
    problem = error if isinstance(error, RequestProblem) else RequestProblem(str(error))
    return JSONResponse(problem.body(), problem.status)


async def _user_error(request: Request, error: Exception) -> Response:
    problem = RequestProblem(str(error), status=422, code=type(error).__name__)
    details = error.as_dict() if isinstance(error, TutelageError) else {}
    return JSONResponse({**problem.body(), "tutelage": details}, problem.status)


async def _server_error(request: Request, error: Exception) -> Response:
    problem = RequestProblem(f"the engine failed: {type(error).__name__}: {error}", status=500)
    return JSONResponse(problem.body(), problem.status)
