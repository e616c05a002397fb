"""What the gateway's benchmark is made of: a trivial engine, a bare proxy, clients, processes.

The engine answers with prepared bytes. Words in the request's last message change how: `wait-N`
waits N ms first, `endless` streams without an end. It keeps when each unfinished stream was left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

PROMPT = "You are a medical coder. Answer with JSON only. " * 8
ANSWER = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "base",
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": '{"chapter": "eye"}'}}],
    "usage": {"prompt_tokens": 200, "completion_tokens": 8, "total_tokens": 208},
}  # fmt: skip
ASK = {
    "model": "coder",
    "messages": [{"role": "user", "content": "Acute conjunctivitis, unspecified, right eye"}],
    "user": "user-1",
}
EVENTS = 8  # of a stream, one a millisecond
SECRET = "sk-bench-0123456789abcdef"  # what clients show; our own key replaces it


def _event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choices = [] if more else [{"index": 0, "delta": delta, "finish_reason": finish}]
    shared = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "base"}
    data = b"data: " + json.dumps({**shared, "choices": choices, **more}).encode() + b"\n\n"
    return b"%x\r\n" % len(data) + data + b"\r\n"


class Trivial(asyncio.Protocol):
    """An engine that answers every request with the same bytes."""

    left: list[float] = []  # time.monotonic() at which an endless stream lost its reader
    open_streams = 0
    body = json.dumps(ANSWER).encode()
    models = b'{"object": "list", "data": [{"id": "base"}]}'
    pieces = [_event({"role": "assistant", "content": "{"})]
    pieces += [_event({"content": ' "eye"'}) for _ in range(EVENTS - 3)]
    pieces += [_event({"content": "}"}), _event({}, "stop")]
    usage = _event({}, usage=ANSWER["usage"])
    done = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    stream_head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )

    def connection_made(self, transport: Any) -> None:
        self.transport, self.buffer, self.task = transport, b"", None
        self.may_write = asyncio.Event()
        self.may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            size = end + 4 + (int(found[1]) if found else 0)
            if len(self.buffer) < size:
                return
            body, self.buffer = self.buffer[end + 4 : size], self.buffer[size:]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            seen = {"left": Trivial.left, "open": Trivial.open_streams}
            self.send(self.models if b"/models" in head else json.dumps(seen).encode())
            return
        wait = re.search(rb"wait-(\d+)", body)
        if b'"stream":true' in body or b'"stream": true' in body:
            work = self.endless() if b"endless" in body else self.stream()
            self.task = asyncio.ensure_future(work)
        elif wait:
            loop = asyncio.get_running_loop()
            loop.call_later(int(wait[1]) / 1000, self.send, self.body)
        else:
            self.send(self.body)

    def send(self, body: bytes) -> None:
        if not self.transport.is_closing():
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
            self.transport.write(head + b"%d\r\n\r\n" % len(body) + body)

    async def stream(self) -> None:
        self.transport.write(self.stream_head)
        for piece in self.pieces:
            self.transport.write(piece)
            await asyncio.sleep(0.001)
        self.transport.write(self.usage + self.done)

    async def endless(self) -> None:
        Trivial.open_streams += 1
        word = _event({"content": "word " * 40})
        try:
            self.transport.write(self.stream_head)
            while True:
                await self.may_write.wait()
                self.transport.write(word)
                await asyncio.sleep(0.005)
        finally:
            Trivial.open_streams -= 1
            Trivial.left.append(time.monotonic())


async def run_engine(port: int) -> None:
    """Serve the trivial engine."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Trivial, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def run_floor(port: int, engine: str) -> None:
    """Serve the bare proxy: the same server and client, and nothing else."""
    import aiohttp
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    clients: list[aiohttp.ClientSession] = []

    async def forward(request: Request) -> Response:
        if not clients:
            clients.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        data = await request.body()
        answer = await clients[0].post(f"{engine}/v1/chat/completions", data=data)
        if answer.content_type == "text/event-stream":
            pieces = answer.content.iter_any()
            return StreamingResponse(pieces, media_type="text/event-stream")
        async with answer:
            body = await answer.read()
            return Response(body, answer.status, media_type="application/json")

    app = Starlette(routes=[Route("/v1/chat/completions", forward, methods=["POST"])])
    uvicorn.run(app, port=port, log_config=None, access_log=False, loop="uvloop", http="httptools")


def run_gateway(port: int, engine: str, folder: str, settings: dict[str, Any]) -> None:
    """Serve the real gateway over a project whose engine is remote, with a key that is checked."""
    from tutelage.release.bundle import BaseRef, OutputRef, ReleaseManifest, create_release
    from tutelage.release.deployments import ensure_deployment
    from tutelage.serving.access.keys import digest
    from tutelage.store.releases import KeyRow
    from tutelage.workflows.context import open_context
    from tutelage.workflows.serving.serve import run_serve

    endpoint = {"base_url": engine, "model": "base"}
    config = {
        "name": "coder", "model": "demo", "prompt": PROMPT,
        "deploy": {"engine": "remote", "endpoint": endpoint, **settings},
    }  # fmt: skip
    (Path(folder) / "tutelage.yaml").write_text(json.dumps(config))
    ctx = open_context(Path(folder))
    manifest = ReleaseManifest(
        kind="base",
        base=BaseRef(spec="demo", name="demo", digest="0" * 64),
        prompt=PROMPT,
        output=OutputRef(field="chapter", labels=("eye", "ear")),
    )
    release = create_release(ctx.store, ctx.workspace, manifest)
    ensure_deployment(ctx.store, "coder", release.id)
    with ctx.store.begin() as session:
        session.add(KeyRow(hash=digest(SECRET), name="bench", role="client"))
    run_serve(ctx, port=port)


class Client:
    """A keep-alive connection that sends one prepared request and waits for the answer."""

    def __init__(self, port: int, *, stream: bool = False, words: str = "") -> None:
        self.port = port
        self.used = 0.0  # time.perf_counter() when it was used last
        content = f"{ASK['messages'][0]['content']} {words}"
        ask = {**ASK, "messages": [{"role": "user", "content": content}], "stream": stream}
        body = json.dumps(ask).encode()
        self.request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer "
            + SECRET.encode()
            + b"\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            + body
        )

    async def open(self, buffer: int | None = None) -> None:
        """Connect; with `buffer` the system takes about so many bytes ahead, and no more."""
        client = socket.socket()
        if buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        self.reader, self.writer = await asyncio.open_connection(sock=client, limit=buffer or 2**16)

    async def ask(self) -> tuple[float, int, dict[bytes, bytes]]:
        """Return the seconds one request took, its status and its headers."""
        started = time.perf_counter()
        self.writer.write(self.request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.lower().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines if line)
        if b"content-length" in headers:
            await self.reader.readexactly(int(headers[b"content-length"]))
        else:
            await self._chunks()
        self.used = time.perf_counter()
        return self.used - started, int(first.split(b" ")[1]), headers

    async def _chunks(self) -> None:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            await self.reader.readexactly(size + 2)
        await self.reader.readexactly(2)


async def flood(port: int, seconds: float, connections: int, *, stream: bool) -> float:
    """Return requests a second with every connection always busy."""
    clients = [Client(port, stream=stream) for _ in range(connections)]
    await asyncio.gather(*(client.open() for client in clients))
    deadline = time.perf_counter() + seconds

    async def work(client: Client) -> int:
        count = 0
        while time.perf_counter() < deadline:
            await _good(client)
            count += 1
        client.writer.close()
        return count

    started = time.perf_counter()
    counts = await asyncio.gather(*(work(client) for client in clients))
    return sum(counts) / (time.perf_counter() - started)


async def _good(client: Client) -> float:
    took, status, _ = await client.ask()
    if status != 200:
        raise RuntimeError(f"a request was answered with {status}")
    return took


async def paced(port: int, seconds: float, rate: float, *, stream: bool) -> list[float]:
    """Return the delays in ms of requests sent at a fixed rate, whatever happens to the others."""
    idle: list[Client] = []
    delays: list[float] = []

    async def one() -> None:
        client = idle.pop() if idle else None
        if client is None or time.perf_counter() - client.used > 2:  # its server may hang up
            client = Client(port, stream=stream)
            await client.open()
        delays.append(await _good(client) * 1000)
        idle.append(client)

    await asyncio.gather(*(one() for _ in range(4)))
    delays.clear()
    tasks, started = [], time.perf_counter()
    for number in range(int(seconds * rate)):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    for client in idle:
        client.writer.close()
    return sorted(delays)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, core: int, *, path: str = "/v1/models", wait_s: float = 120
) -> Iterator[psutil.Process]:
    """Yield a server's process on one core, once it answers at `path`."""
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "DO_NOT_TRACK": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | quiet
    )
    try:
        watched = psutil.Process(process.pid)
        with contextlib.suppress(AttributeError, psutil.Error, OSError):
            watched.cpu_affinity([core])
        deadline = time.monotonic() + wait_s
        while not _answers(port, path):
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with {process.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not answer within {wait_s} s")
            time.sleep(0.05)
        yield watched
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _answers(port: int, path: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as client:
            client.settimeout(5)
            lines = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {SECRET}"
            client.sendall(f"{lines}\r\n\r\n".encode())
            return bool(client.recv(100))
    except OSError:
        return False


def role(name: str, port: int, *arguments: str) -> list[str]:
    """Return the command that runs the benchmark's script as one of its servers."""
    script = str(Path(__file__).with_name("gateway.py"))
    return [sys.executable, script, "--role", name, "--port", str(port), *arguments]
