"""A server that speaks vLLM's protocol without a model: its routes for adapters, health, metrics.

What it answers, refuses and lists follows vLLM's OpenAI server (0.10 and later): adapters are read
from a folder it can see, a name is taken once, one that is not there is a 404, and without
VLLM_ALLOW_RUNTIME_LORA_UPDATING the routes do not exist. The answer to a chat is
`NAME answers: LAST MESSAGE`, so that a test sees who it was.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclass
class Engine:
    """What the server holds, how it behaves, and what it saw."""

    models: tuple[str, ...] = ("base",)  # --served-model-name
    runtime_lora: bool = True  # --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING
    max_lora_rank: int = 16
    api_key: str | None = None
    adapters: dict[str, str] = field(default_factory=dict)  # name -> path
    healthy: bool = True
    status: int = 200  # of chats; others are refusals
    kv_cache: float = 0.25
    preemptions: float = 0.0
    running: int = 0
    asked: list[str] = field(default_factory=list)  # the model of each chat
    calls: list[str] = field(default_factory=list)  # method and path of all else
    go: threading.Event = field(default_factory=threading.Event)  # chats wait for it
    most: int = 0

    def __post_init__(self) -> None:
        self.go.set()

    def restart(self) -> None:
        """Lose what was loaded while it ran."""
        self.adapters.clear()

    def reset(self) -> None:
        """Be as new."""
        self.__init__()  # type: ignore[misc]


def make_app(engine: Engine) -> Starlette:
    """Return the application."""

    async def models(request: Request) -> Response:
        engine.calls.append("GET /v1/models")
        if not _allowed(engine, request):
            return JSONResponse({"error": "Unauthorized"}, 401)
        cards = [_card(name, name, None) for name in engine.models]
        cards += [_card(n, path, engine.models[0]) for n, path in engine.adapters.items()]
        return JSONResponse({"object": "list", "data": cards})

    async def load(request: Request) -> Response:
        body = await request.json()
        name, path = body.get("lora_name"), body.get("lora_path")
        engine.calls.append(f"load {name}")
        if not _allowed(engine, request):
            return JSONResponse({"error": "Unauthorized"}, 401)
        if not name or not path:
            return _error(400, "Both 'lora_name' and 'lora_path' must be provided.")
        if name in engine.adapters:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        config = Path(path) / "adapter_config.json"
        if not config.is_file():
            return _error(404, f"Loading lora {name} failed: No adapter found for {path}")
        rank = json.loads(config.read_text())["r"]
        if rank > engine.max_lora_rank:
            top = engine.max_lora_rank
            return _error(500, f"LoRA rank {rank} is greater than max_lora_rank {top}.")
        engine.adapters[name] = path
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(request: Request) -> Response:
        name = (await request.json()).get("lora_name")
        engine.calls.append(f"unload {name}")
        if name not in engine.adapters:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        del engine.adapters[name]
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def health(request: Request) -> Response:
        return Response(status_code=200 if engine.healthy else 503)

    async def version(request: Request) -> Response:
        return JSONResponse({"version": "0.11.0"})

    async def metrics(request: Request) -> Response:
        return PlainTextResponse(metrics_page(engine))

    routes = [
        Route("/v1/chat/completions", partial(_chat, engine), methods=["POST"]),
        Route("/v1/models", models),
        Route("/health", health),
        Route("/version", version),
        Route("/metrics", metrics),
    ]
    if engine.runtime_lora:
        routes += [
            Route("/v1/load_lora_adapter", load, methods=["POST"]),
            Route("/v1/unload_lora_adapter", unload, methods=["POST"]),
        ]
    return Starlette(routes=routes, exception_handlers={404: _missing})


def metrics_page(engine: Engine) -> str:
    """Return the page of metrics, as vLLM writes it."""
    labels = f'engine="0",model_name="{engine.models[0]}"'
    config = f'block_size="16",gpu_memory_utilization="0.9",num_gpu_blocks="2048",{labels}'
    return "\n".join(
        (
            "# HELP vllm:num_requests_running Number of requests in model execution batches.",
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running{{{labels}}} {float(engine.running)}",
            f"vllm:num_requests_waiting{{{labels}}} 0.0",
            "# TYPE vllm:kv_cache_usage_perc gauge",
            f"vllm:kv_cache_usage_perc{{{labels}}} {engine.kv_cache}",
            "# TYPE vllm:num_preemptions_total counter",
            f"vllm:num_preemptions_total{{{labels}}} {engine.preemptions}",
            f"vllm:num_preemptions_created{{{labels}}} 1.7e+09",
            f"vllm:cache_config_info{{{config}}} 1.0",
            "",
        )
    )


async def _chat(engine: Engine, request: Request) -> Response:
    body = await request.json()
    name = body["model"]
    if not _allowed(engine, request):
        return JSONResponse({"error": "Unauthorized"}, 401)
    if name not in (*engine.models, *engine.adapters):
        return _error(404, f"The model `{name}` does not exist.")
    engine.asked.append(name)
    if engine.status != 200:
        return _error(engine.status, "the engine is not well")
    text = f"{name} answers: {body['messages'][-1]['content']}"
    if body.get("stream"):
        return StreamingResponse(_stream(engine, name, text), media_type="text/event-stream")
    await _wait(engine)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return JSONResponse(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": name,
            "choices": [{**choice, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
        }
    )


async def _stream(engine: Engine, name: str, text: str) -> AsyncIterator[bytes]:
    for place, word in enumerate(text.split(" ")):
        delta = {"content": word if place == 0 else f" {word}"}
        yield _event(name, [{"index": 0, "delta": delta, "finish_reason": None}])
        await _wait(engine)
    yield _event(name, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
    yield _event(name, [], {"prompt_tokens": 5, "completion_tokens": 3})
    yield b"data: [DONE]\n\n"


async def _wait(engine: Engine) -> None:
    engine.running += 1
    engine.most = max(engine.most, engine.running)
    try:
        while not engine.go.is_set():
            await asyncio.sleep(0.005)
    finally:
        engine.running -= 1


def _event(name: str, choices: list[Any], usage: Any = None) -> bytes:
    event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": name}
    return b"data: " + json.dumps({**event, "choices": choices, "usage": usage}).encode() + b"\n\n"


def _card(name: str, root: str, parent: str | None) -> dict[str, Any]:
    return {"id": name, "object": "model", "owned_by": "vllm", "root": root, "parent": parent}


def _error(status: int, message: str) -> Response:
    kind = "NotFoundError" if status == 404 else "BadRequestError"
    error = {"message": message, "type": kind, "param": None, "code": status}
    return JSONResponse({"error": error}, status)


async def _missing(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "Not Found"}, 404)


def _allowed(engine: Engine, request: Request) -> bool:
    sent = request.headers.get("authorization")
    return engine.api_key is None or sent == f"Bearer {engine.api_key}"


class FakeVllm:
    """The server in a thread; `stop` and `start` again use the same port."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine or Engine()
        self.port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address, with /v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> FakeVllm:
        """Listen."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            make_app(self.engine), log_config=None, access_log=False, lifespan="off",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close every connection and stop listening."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._server.force_exit = True
            self._thread.join(10)
        self._server = self._thread = None

    def fresh(self) -> None:
        """Be as new, and listen."""
        self.engine.reset()
        if self._server is None:
            self.start()

    __enter__ = start

    def __exit__(self, *error: object) -> None:
        self.stop()
