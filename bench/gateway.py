"""What the gateway costs: requests a second on one core and added delay, against doing nothing.

The engine is a constant answer over a raw socket. `floor` is a bare Starlette + aiohttp proxy that
neither reads nor keeps anything; `direct` goes to the engine itself. The gateway checks the key,
routes, puts the prompt in front, runs both guards, counts, and logs every request durably.
The process under test has a core of its own; engine and client share another.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import machine, table

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


class Constant(asyncio.Protocol):
    """An engine that answers every request with the same bytes."""

    body = json.dumps(ANSWER).encode()
    models = b'{"object": "list", "data": [{"id": "base"}]}'

    def connection_made(self, transport: Any) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            body = self.models if head.startswith(b"get") else self.body
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
                + str(len(body)).encode()
                + b"\r\n\r\n"
                + body
            )


async def run_engine(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Constant, "127.0.0.1", port)
    await server.serve_forever()


def run_floor(port: int, engine: str) -> None:
    """Serve the bare proxy."""
    import aiohttp
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    clients: list[aiohttp.ClientSession] = []

    async def forward(request: Request) -> Response:
        if not clients:
            clients.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        data = await request.body()
        async with clients[0].post(f"{engine}/v1/chat/completions", data=data) as answer:
            body = await answer.read()
            return Response(body, answer.status, media_type="application/json")

    app = Starlette(routes=[Route("/v1/chat/completions", forward, methods=["POST"])])
    uvicorn.run(app, port=port, log_config=None, access_log=False, loop="uvloop", http="httptools")


def run_gateway(port: int, engine: str, folder: str) -> None:
    """Serve the real gateway over a project whose engine is remote."""
    from tutelage.release.bundle import BaseRef, OutputRef, ReleaseManifest, create_release
    from tutelage.release.deployments import ensure_deployment
    from tutelage.workflows.context import open_context
    from tutelage.workflows.serve import run_serve

    config = {
        "name": "coder", "model": "demo", "prompt": PROMPT,
        "deploy": {"engine": "remote", "endpoint": {"base_url": engine, "model": "base"}},
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
    run_serve(ctx, port=port)


class Client:
    """A keep-alive connection that sends one prepared request and waits for the answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        body = json.dumps(ASK).encode()
        self.request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            b"content-type: application/json\r\ncontent-length: "
            + str(len(body)).encode()
            + b"\r\n\r\n"
            + body
        )

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self) -> float:
        """Return the seconds one request took; raise RuntimeError unless it was answered."""
        started = time.perf_counter()
        self.writer.write(self.request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        await self.reader.readexactly(int(head[at + 15 :].split(b"\r\n")[0]))
        if b" 200 " not in head[:16]:
            raise RuntimeError(head[:60].decode())
        return time.perf_counter() - started


async def flood(port: int, seconds: float, connections: int) -> float:
    """Return requests a second with every connection always busy."""
    clients = [Client(port) for _ in range(connections)]
    await asyncio.gather(*(client.open() for client in clients))
    deadline = time.perf_counter() + seconds

    async def work(client: Client) -> int:
        count = 0
        while time.perf_counter() < deadline:
            await client.ask()
            count += 1
        return count

    started = time.perf_counter()
    counts = await asyncio.gather(*(work(client) for client in clients))
    return sum(counts) / (time.perf_counter() - started)


async def paced(port: int, seconds: float, rate: float) -> list[float]:
    """Return the delays in ms of requests sent at a fixed rate, whatever happens to the others."""
    idle: list[Client] = []
    delays: list[float] = []

    async def one() -> None:
        client = idle.pop() if idle else Client(port)
        if not hasattr(client, "writer"):
            await client.open()
        delays.append(await client.ask() * 1000)
        idle.append(client)

    await asyncio.gather(*(one() for _ in range(4)))
    delays.clear()
    tasks, started = [], time.perf_counter()
    for number in range(int(seconds * rate)):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    return sorted(delays)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(role: str, core: int, *arguments: str) -> Iterator[tuple[int, psutil.Process]]:
    """Yield (port, process) of this script in another role, on one core."""
    port = free_port()
    command = [sys.executable, __file__, "--role", role, "--port", str(port), *arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        watched = psutil.Process(process.pid)
        with contextlib.suppress(AttributeError, psutil.Error, OSError):
            watched.cpu_affinity([core])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                raise RuntimeError(f"the {role} ended with {process.returncode}")
            time.sleep(0.05)
        yield port, watched
    finally:
        process.terminate()
        process.wait(30)


def measure(port: int, process: psutil.Process, seconds: float, rounds: int) -> dict[str, float]:
    """Return the medians over rounds: requests/s, CPU ms a request, delays at 100 requests/s."""
    asyncio.run(flood(port, 1.0, 16))
    rates, cpu, p50, p99 = [], [], [], []
    for _ in range(rounds):
        before = process.cpu_times()
        rate = asyncio.run(flood(port, seconds, 16))
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        rates.append(rate)
        cpu.append(used / (rate * seconds) * 1000)
        delays = asyncio.run(paced(port, seconds, 100))
        p50.append(delays[len(delays) // 2])
        p99.append(delays[int(len(delays) * 0.99)])
    names = ("rps", "cpu_ms", "p50_ms", "p99_ms")
    values = (rates, cpu, p50, p99)
    return {n: round(statistics.median(v), 3) for n, v in zip(names, values, strict=True)}


def bench(seconds: float, rounds: int) -> dict[str, Any]:
    """Return the benchmark's JSON object."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    own, other = cores[0], cores[-1]
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(0, [other])
    rows: dict[str, dict[str, Any]] = {}
    with running("engine", other) as (engine_port, engine), tempfile.TemporaryDirectory() as folder:
        url = f"http://127.0.0.1:{engine_port}"
        rows["direct"] = measure(engine_port, engine, seconds, rounds)
        with running("floor", own, "--engine", url) as (port, process):
            rows["floor"] = measure(port, process, seconds, rounds)
        with running("gateway", own, "--engine", url, "--folder", folder) as (port, process):
            rows["gateway"] = measure(port, process, seconds, rounds)
            rows["gateway"]["memory_mb"] = round(process.memory_info().rss / 2**20)
    for row in rows.values():
        row["added_p50_ms"] = round(row["p50_ms"] - rows["direct"]["p50_ms"], 3)
        row["added_p99_ms"] = round(row["p99_ms"] - rows["direct"]["p99_ms"], 3)
    return {
        "name": "gateway",
        "machine": machine() | {"cores": len(cores)},
        "rows": [{"what": name, **row} for name, row in rows.items()],
        "headline": {"rps_vs_floor": round(rows["gateway"]["rps"] / rows["floor"]["rps"], 3)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--role", choices=("engine", "floor", "gateway"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "engine":
        import uvloop

        uvloop.run(run_engine(options.port))
    elif options.role == "floor":
        run_floor(options.port, options.engine)
    elif options.role == "gateway":
        run_gateway(options.port, options.engine, options.folder)
    else:
        result = bench(*((4.0, 3) if options.quick else (15.0, 5)))
        if options.json:
            print(json.dumps(result))
        else:
            print(table([{"memory_mb": "", **row} for row in result["rows"]]))
            print(json.dumps(result["headline"]))


if __name__ == "__main__":
    main()
