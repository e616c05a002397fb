"""A scripted OpenAI-compatible server: answers at once, or slowly, wrongly, or not at all.

Run it in a thread (`FakeBackend`) or as a process: `python -m tests.fakes.openai_backend --port N`.
POST /_script {"model": {...}} sets how a model (or "*") behaves: text, latency_ms, status, code,
stream_gap_ms, die ("before": close without an answer, "during": break off a stream, "unfinished":
end a stream without a finish_reason), finish, tool_calls, logprobs (what each word brings), raw
(bytes of a whole answer, or of a stream).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclass
class Script:
    """What the server does and what it saw."""

    models: set[str] = field(default_factory=lambda: {"base"})
    by_model: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    cancelled: int = 0
    keep: bool = True  # remember request bodies

    def behaviour(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the settings for a request; `when` picks those whose prompt holds a word."""
        text = json.dumps(body["messages"])
        merged = dict(self.by_model.get("*", {}))
        merged.update(self.by_model.get(body["model"], {}))
        for word, settings in merged.pop("when", {}).items():
            if word in text:
                merged.update(settings)
        return merged


def make_app(script: Script) -> Any:
    """Return the server's application over `script`."""

    async def chat(request: Request) -> Response:
        body = json.loads(await request.body())
        if script.keep:
            script.seen.append(body)
            script.headers.append(dict(request.headers))
        if body["model"] not in script.models:
            return _error(404, f"the model {body['model']} does not exist")
        how = script.behaviour(body)
        times = how.get("fail_times", 0)
        if times:
            script.by_model.setdefault("*", {})["fail_times"] = times - 1
            return _HangUp()
        if not await _stays(request, how.get("latency_ms", 0)):
            script.cancelled += 1
            return _HangUp()
        if how.get("status", 200) != 200:
            return _error(how["status"], how.get("message", "scripted failure"), how.get("code"))
        if how.get("die") == "before":
            return _HangUp()
        if "raw" in how:
            kind = "text/event-stream" if body.get("stream") else "application/json"
            return Response(how["raw"], media_type=kind)
        text = how.get("text", '{"family": "warm"}')
        if callable(text):  # in a thread only: what to say may depend on what was asked
            text = text(body)
        if body.get("stream"):
            return StreamingResponse(
                _stream(script, body, how, text), media_type="text/event-stream"
            )
        whole = json.dumps(_whole(body, how, text)).encode()
        if how.get("die") == "half":
            return _HangUp(whole)
        return Response(whole, media_type="application/json")

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": m} for m in sorted(script.models)]})

    async def load(request: Request) -> Response:
        script.models.add((await request.json())["lora_name"])
        return Response("Success")

    async def unload(request: Request) -> Response:
        script.models.discard((await request.json())["lora_name"])
        return Response("Success")

    async def control(request: Request) -> Response:
        script.by_model.update(await request.json())
        return JSONResponse({})

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/load_lora_adapter", load, methods=["POST"]),
        Route("/v1/unload_lora_adapter", unload, methods=["POST"]),
        Route("/_script", control, methods=["POST"]),
    ]
    return _with_hang_up(Starlette(routes=routes))


def _whole(body: dict[str, Any], how: dict[str, Any], text: str) -> dict[str, Any]:
    counts = {
        "prompt_tokens": 11,
        "completion_tokens": 4,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 7},
    }
    return {
        "id": "backend-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **_calls(how)},
                "logprobs": {"content": how["logprobs"]} if "logprobs" in how else None,
                "finish_reason": how.get("finish", "stop"),
            }
        ],
        **({"usage": counts} if how.get("counts", True) else {}),
    }


def _calls(how: dict[str, Any]) -> dict[str, Any]:
    return {"tool_calls": how["tool_calls"]} if "tool_calls" in how else {}


async def _stream(
    script: Script, body: dict[str, Any], how: dict[str, Any], text: str
) -> AsyncIterator[bytes]:
    try:
        for index, word in enumerate(text.split(" ")):
            if index and how.get("die") in ("during", "half"):
                raise ConnectionResetError("scripted")
            delta = {"content": word if index == 0 else f" {word}"}
            choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": None}
            if "logprobs" in how:
                choice["logprobs"] = {"content": [how["logprobs"][index]]}
            yield _event(body, [choice])
            await _pause(how.get("stream_gap_ms", 0))
        for index, call in enumerate(how.get("tool_calls", [])):
            for delta in _call_pieces(index, call):
                choice = {"index": 0, "delta": {"tool_calls": [delta]}, "finish_reason": None}
                yield _event(body, [choice])
        if how.get("die") == "unfinished":
            yield b"data: [DONE]\n\n"
            return
        yield _event(body, [{"index": 0, "delta": {}, "finish_reason": how.get("finish", "stop")}])
        if (body.get("stream_options") or {}).get("include_usage"):
            yield _event(body, [], {"prompt_tokens": 11, "completion_tokens": 4})
        yield b"data: [DONE]\n\n"
    except (asyncio.CancelledError, GeneratorExit):
        script.cancelled += 1
        raise


def _call_pieces(index: int, call: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a call in pieces: its name, then its arguments in two halves."""
    arguments = call["function"]["arguments"]
    half = len(arguments) // 2
    head = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
    parts = [arguments[:half], arguments[half:]]
    return [head, *({"index": index, "function": {"arguments": part}} for part in parts)]


def _event(body: dict[str, Any], choices: list[Any], usage: Any = None) -> bytes:
    event = {"id": "backend-1", "object": "chat.completion.chunk", "created": 1}
    event |= {"model": body["model"], "choices": choices}
    if usage is not None:
        event["usage"] = usage
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def _stays(request: Request, milliseconds: float) -> bool:
    """Wait; return False as soon as the client leaves."""
    if not milliseconds:
        return True
    gone = asyncio.ensure_future(request.receive())
    done, _ = await asyncio.wait({gone}, timeout=milliseconds / 1000)
    gone.cancel()
    return not done


async def _pause(milliseconds: float) -> None:
    if milliseconds:
        await asyncio.sleep(milliseconds / 1000)


def _error(status: int, message: str, code: str | None = None) -> Response:
    body = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    return JSONResponse(body, status)


class _HangUp(Response):
    """Ends the connection without an answer, or in the middle of one."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.body:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            half = bytes(self.body[: len(self.body) // 2])
            await send({"type": "http.response.body", "body": half, "more_body": True})
        scope["hang_up"]()
        await receive()


def _with_hang_up(app: Starlette) -> Any:
    async def outer(scope: Any, receive: Any, send: Any) -> None:
        # uvicorn's own request object, which only the outermost application sees
        await app({**scope, "hang_up": send.__self__.transport.abort}, receive, send)

    return outer


class FakeBackend:
    """The server in a thread. `url` has no /v1."""

    def __init__(self, script: Script | None = None, port: int = 0) -> None:
        self.script = script or Script()
        self._socket = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            make_app(self.script), log_config=None, access_log=False, lifespan="off",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self) -> FakeBackend:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--stream-gap-ms", type=float, default=0)
    options = parser.parse_args()
    script = Script(keep=False)
    script.by_model["*"] = {
        "latency_ms": options.latency_ms,
        "stream_gap_ms": options.stream_gap_ms,
    }
    uvicorn.run(
        make_app(script), host="127.0.0.1", port=options.port, log_config=None, access_log=False
    )


if __name__ == "__main__":
    main()
