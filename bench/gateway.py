"""What the gateway costs and what it withstands: against LiteLLM's proxy and against doing nothing.

The engine gives a prepared answer, whole or as a stream. `floor` is a bare Starlette + aiohttp
proxy that neither reads nor keeps anything; `direct` goes to the engine itself. The gateway checks
a key, routes, puts the prompt in front, runs its guards, counts, and logs every request durably.
LiteLLM (bench/.venvs/litellm, from `make bench-setup`) checks its master key and keeps nothing.
Each has one process on a core of its own; engine and client share another.

Delays are taken at equal load: half of what LiteLLM can do. Then the gateway alone: 100 requests
a second, ten times more than its engine can take, readers that hardly read, clients that leave.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import machine, table
from common_gateway import (
    SECRET,
    Client,
    flood,
    free_port,
    paced,
    role,
    run_engine,
    run_floor,
    run_gateway,
    running,
)

LITELLM = Path(__file__).resolve().parent / ".venvs" / "litellm" / "bin" / "litellm"
SYSTEMS = ("direct", "floor", "gateway", "litellm")
CONNECTIONS = 16
SLOTS, WAIT_MS = 8, 50  # of the overloaded engine: 160 requests/s
SLOW_READERS, SLOW_S = 256, 48.0  # the system's buffers take half of that time to fill
WORD = b"word "  # what an endless answer consists of


@contextlib.contextmanager
def served(
    name: str, engine: int, core: int, folder: Path, **settings: Any
) -> Iterator[tuple[int, psutil.Process]]:
    """Yield (port, process) of one of the systems over the engine at port `engine`."""
    port, url = free_port(), f"http://127.0.0.1:{engine}"
    folder = Path(tempfile.mkdtemp(dir=folder))
    if name == "litellm":
        model = {"model": "openai/base", "api_base": f"{url}/v1", "api_key": "x"}
        config = {
            "model_list": [{"model_name": "coder", "litellm_params": model}],
            "general_settings": {"master_key": SECRET},
            "litellm_settings": {"num_retries": 0, "request_timeout": 60},
        }
        (folder / "config.yaml").write_text(json.dumps(config))
        command = [str(LITELLM), "--config", str(folder / "config.yaml"), "--port", str(port)]
        command += ["--host", "127.0.0.1", "--num_workers", "1"]
    else:
        more = ["--folder", str(folder), "--settings", json.dumps(settings)]
        command = role(name, port, "--engine", url, *(more if name == "gateway" else []))
    with running(command, port, core, path="/v1/models") as process:
        yield port, process


def capacity(port: int, process: psutil.Process, plan: Plan, *, stream: bool) -> dict[str, float]:
    """Return the medians over rounds: requests a second and CPU ms of one."""
    connections = CONNECTIONS * (4 if stream else 1)  # a stream mostly waits for its engine
    asyncio.run(flood(port, 1.0, connections, stream=stream))
    rates, cpu = [], []
    for _ in range(plan.rounds):
        before = process.cpu_times()
        rate = asyncio.run(flood(port, plan.seconds, connections, stream=stream))
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        rates.append(rate)
        cpu.append(used / (rate * plan.seconds) * 1000)
    return {"rps": round(statistics.median(rates), 1), "cpu_ms": round(statistics.median(cpu), 3)}


def delays(port: int, rate: float, plan: Plan, *, stream: bool) -> tuple[float, float]:
    """Return the medians over rounds of the p50 and p99 of the whole delay in ms."""
    p50, p99 = [], []
    for _ in range(plan.rounds):
        found = asyncio.run(paced(port, max(plan.seconds, 200 / rate), rate, stream=stream))
        p50.append(found[len(found) // 2])
        p99.append(found[int(len(found) * 0.99)])
    return statistics.median(p50), statistics.median(p99)


class Plan:
    """How long to measure."""

    def __init__(self, seconds: float, rounds: int) -> None:
        self.seconds, self.rounds = seconds, rounds


def compare(plan: Plan, cores: tuple[int, int], folder: Path) -> list[dict[str, Any]]:
    """Return a row for each system, whole answers and streams; delays at equal load."""
    own, other = cores
    names = [name for name in SYSTEMS if name != "litellm" or LITELLM.exists()]
    rows = {}
    engine = free_port()
    with running(role("engine", engine), engine, other) as engine_process:
        equal: dict[bool, float] = {}
        for name in reversed(names):  # LiteLLM first: its capacity sets the equal load
            context = (
                contextlib.nullcontext((engine, engine_process))
                if name == "direct"
                else served(name, engine, own, folder)
            )
            with context as (port, process):
                for stream in (False, True):
                    row = capacity(port, process, plan, stream=stream)
                    rate = equal.setdefault(stream, min(100.0, row["rps"] / 2))
                    row["equal_rps"] = round(rate, 1)
                    row["p50_ms"], row["p99_ms"] = delays(port, rate, plan, stream=stream)
                    at_100 = (
                        (0.0, 0.0) if name == "litellm" else delays(port, 100, plan, stream=stream)
                    )
                    row["p50_100_ms"], row["p99_100_ms"] = at_100
                    row["memory_mb"] = round(process.memory_info().rss / 2**20)
                    rows[name, stream] = row
    return [_added(name, stream, rows) for name in names for stream in (False, True)]


def _added(name: str, stream: bool, rows: dict[Any, dict[str, float]]) -> dict[str, Any]:
    """Return a row as it is shown: what a system adds to the engine's own delay."""
    row, direct = rows[name, stream], rows["direct", stream]
    shown = {k: row[k] for k in ("rps", "cpu_ms", "memory_mb", "equal_rps")}
    for delay in ("p50_ms", "p99_ms", "p50_100_ms", "p99_100_ms"):
        shown[f"added_{delay}"] = round(row[delay] - direct[delay], 2) if row[delay] else None
    return {"what": name, "answers": "stream" if stream else "whole", **shown}


async def overload(port: int, seconds: float) -> dict[str, Any]:
    """Send ten times what the engine takes; then return how refusals and recovery were."""
    capacity_rps = SLOTS * 1000 / WAIT_MS
    words = f"wait-{WAIT_MS}"
    idle: list[Client] = []
    refused: list[float] = []
    counts = {"answered": 0, "refused": 0, "other": 0, "without_retry_after": 0}

    async def one() -> int:
        client = idle.pop() if idle else Client(port, words=words)
        if not hasattr(client, "writer"):
            await client.open()
        took, status, headers = await client.ask()
        idle.append(client)
        if status == 429:
            refused.append(took * 1000)
            counts["without_retry_after"] += b"retry-after" not in headers
        counts[{200: "answered", 429: "refused"}.get(status, "other")] += 1
        return status

    started, tasks = time.perf_counter(), []
    rate = 10 * capacity_rps
    for number in range(int(seconds * rate)):
        pause = started + number / rate - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one()))
    sent_rps = len(tasks) / (time.perf_counter() - started)
    ended = time.perf_counter()
    good = 0
    while good < 20:  # recovered: twenty answers in a row at half of the capacity
        await asyncio.sleep(2 / capacity_rps)
        good = good + 1 if await one() == 200 else 0
    recovery = time.perf_counter() - ended
    await asyncio.gather(*tasks)
    refused.sort()
    return {
        "sent_rps": round(sent_rps),
        "engine_rps": round(capacity_rps),
        **counts,
        "refusal_p50_ms": round(refused[len(refused) // 2], 1),
        "refusal_p99_ms": round(refused[int(len(refused) * 0.99)], 1),
        "recovery_s": round(recovery, 2),
    }


async def slow_readers(port: int, process: psutil.Process, seconds: float) -> dict[str, Any]:
    """Return the gateway's memory while many streams are read at 4 KB a second.

    By half way every buffer on the way is full; from then on only the texts may grow, which the
    gateway keeps for its guards and records.
    """
    clients = [Client(port, stream=True, words="endless") for _ in range(SLOW_READERS)]
    before, taken = process.memory_info().rss, [0]  # bytes of text

    async def read(client: Client) -> None:
        await client.open(buffer=4096)
        client.writer.write(client.request)
        while True:
            taken[0] += len(WORD) * (await client.reader.read(2048)).count(WORD)
            await asyncio.sleep(0.5)

    readers = [asyncio.create_task(read(client)) for client in clients]
    memory, texts = [], []
    for _ in range(4):
        await asyncio.sleep(seconds / 4)
        memory.append(round(process.memory_info().rss / 2**20))
        texts.append(taken[0] / 2**20)
    broken = sum(reader.done() for reader in readers)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    for client in clients:
        client.writer.close()
    return {
        "streams": SLOW_READERS,
        "broken": broken,
        "before_mb": round(before / 2**20),
        "quarter_mb": memory[0],
        "half_way_mb": memory[1],
        "three_quarters_mb": memory[2],
        "end_mb": memory[3],
        "text_since_half_way_mb": round(texts[3] - texts[1]),
    }


async def leaving(port: int, engine: int, count: int = 40) -> dict[str, Any]:
    """Return how long after its client the engine's work ended, in ms."""
    asks = b"GET /state HTTP/1.1\r\nhost: x\r\n\r\n"

    async def state() -> dict[str, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", engine)
        writer.write(asks)
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        found: dict[str, Any] = json.loads(await reader.readexactly(size))
        writer.close()
        return found

    while (await state())["open"]:
        await asyncio.sleep(0.1)
    before = len((await state())["left"])
    waits = []
    for number in range(count):
        client = Client(port, stream=True, words="endless")
        await client.open()
        client.writer.write(client.request)
        await client.reader.readexactly(1500)
        client.writer.transport.abort()
        gone = time.monotonic()
        while len(left := (await state())["left"]) <= before + number:
            if time.monotonic() - gone > 20:
                raise RuntimeError("the engine went on after its client had left")
            await asyncio.sleep(0.002)
        waits.append((left[-1] - gone) * 1000)
    waits.sort()
    return {
        "clients": count,
        "p50_ms": round(waits[count // 2], 1),
        "most_ms": round(waits[-1], 1),
    }


def withstand(plan: Plan, cores: tuple[int, int], folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the gateway does under overload, slow readers and clients that leave."""
    own, other = cores
    engine = free_port()
    found: dict[str, dict[str, Any]] = {}
    with running(role("engine", engine), engine, other):
        settings = {"concurrency": SLOTS, "queue": 2 * SLOTS}
        with served("gateway", engine, own, folder, **settings) as (port, _):
            found["overload"] = asyncio.run(overload(port, plan.seconds))
        settings = {"concurrency": 1000, "timeout": 600}
        with served("gateway", engine, own, folder, **settings) as (port, process):
            asyncio.run(flood(port, 1.0, CONNECTIONS, stream=True))
            found["slow readers"] = asyncio.run(slow_readers(port, process, SLOW_S))
            found["leaving"] = asyncio.run(leaving(port, engine))
    return found


def headline(rows: list[dict[str, Any]], tried: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the figures the targets are about."""
    by = {(row["what"], row["answers"]): row for row in rows}
    found: dict[str, Any] = {}
    for answers in ("whole", "stream"):
        ours = by["gateway", answers]
        found[f"{answers}_vs_floor"] = round(ours["rps"] / by["floor", answers]["rps"], 2)
        found[f"{answers}_added_p50_ms_at_100"] = ours["added_p50_100_ms"]
        found[f"{answers}_added_p99_ms_at_100"] = ours["added_p99_100_ms"]
        if ("litellm", answers) in by:
            theirs = by["litellm", answers]
            found[f"{answers}_vs_litellm"] = round(ours["rps"] / theirs["rps"], 1)
            for delay in ("added_p50_ms", "added_p99_ms"):
                found[f"{answers}_{delay}"] = [ours[delay], theirs[delay]]
    found["refusal_p99_ms"] = tried["overload"]["refusal_p99_ms"]
    found["recovery_s"] = tried["overload"]["recovery_s"]
    slow = tried["slow readers"]
    found["slow_readers_growth_mb"] = slow["end_mb"] - slow["half_way_mb"]
    found["slow_readers_text_mb"] = slow["text_since_half_way_mb"]
    found["cancelled_within_ms"] = tried["leaving"]["most_ms"]
    return found


def bench(plan: Plan) -> dict[str, Any]:
    """Return the benchmark's JSON object."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    pair = cores[0], cores[-1]
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(0, [pair[1]])
    with tempfile.TemporaryDirectory() as name:
        rows = compare(plan, pair, Path(name))
        tried = withstand(plan, pair, Path(name))
    return {
        "name": "gateway",
        "machine": machine() | {"cores": len(cores)},
        "rows": [*rows, *({"what": name, **figures} for name, figures in tried.items())],
        "headline": headline(rows, tried),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--role", choices=("engine", "floor", "gateway"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--settings", default="{}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "engine":
        import uvloop

        uvloop.run(run_engine(options.port))
    elif options.role == "floor":
        run_floor(options.port, options.engine)
    elif options.role == "gateway":
        run_gateway(options.port, options.engine, options.folder, json.loads(options.settings))
    else:
        result = bench(Plan(3.0, 1) if options.quick else Plan(10.0, 5))
        if options.json:
            print(json.dumps(result))
        else:
            systems = [row for row in result["rows"] if "rps" in row]
            print(table(systems))
            for row in result["rows"][len(systems) :]:
                print(json.dumps(row))
            print(json.dumps(result["headline"], indent=1))


if __name__ == "__main__":
    main()
