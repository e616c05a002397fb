"""Long load at 80 % of what the gateway can do: no leak, no error, a p99 that stays where it was.

Capacity is measured first, with every connection always busy: the least of three times, after a
start in which the log has not begun to be written away. Then requests are sent at a fixed
rate, a fifth of them streamed, a tenth rated; once a window the delays, the process's memory,
files, threads and the log's backlog are noted. The engine answers after 20 ms. On two cores the
clients and the engine take a share of the machine, so capacity is that of all three together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import aiohttp
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
from tests.fakes.gateway import gateway_project
from tests.fakes.gateway_process import GatewayProcess, Note, Told, audit

from common import machine, table
from drills import engine_process, free_port

ENGINE_MS = 20
SHARE = 0.8  # of capacity
MOST = 256  # requests under way; more are left out and counted
WARM_UP = 0.1  # share of the run that the slopes leave out


@dataclass
class Window:
    """What happened in one window of the run."""

    delays_ms: list[float] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    left_out: int = 0


class Load:
    """Requests at a fixed rate, whatever happens to those before."""

    def __init__(self, session: aiohttp.ClientSession, url: str, told: Told) -> None:
        self.session, self.url, self.told = session, url, told
        self.window = Window()
        self.number = 0
        self.running: set[asyncio.Task[None]] = set()

    async def flood(self, seconds: float, connections: int = 32) -> float:
        """Return requests a second with every connection always busy."""
        began = time.perf_counter()

        async def busy() -> int:
            count = 0
            while time.perf_counter() - began < seconds:
                await self.one()
                count += 1
            return count

        counts = await asyncio.gather(*(busy() for _ in range(connections)))
        return sum(counts) / (time.perf_counter() - began)

    async def pace(self, rate: float, until: float) -> None:
        """Send `rate` requests a second until the clock (perf_counter) shows `until`."""
        began, sent = time.perf_counter(), 0
        while (now := time.perf_counter()) < until:
            due = int((now - began) * rate)
            while sent < due:
                sent += 1
                if len(self.running) >= MOST:
                    self.window.left_out += 1
                    continue
                task = asyncio.create_task(self.one())
                self.running.add(task)
                task.add_done_callback(self.running.discard)
            await asyncio.sleep(max(0.0, began + (sent + 1) / rate - time.perf_counter()))
        await asyncio.gather(*self.running)

    async def one(self) -> None:
        """Send one request, and feedback on every tenth answer."""
        self.number += 1
        number, window = self.number, self.window
        streamed = number % 5 == 0
        body = {
            "model": "colours", "user": f"user-{number % 500}", "stream": streamed,
            "messages": [{"role": "user", "content": f"thing {number} " + "and so on " * 20}],
        }  # fmt: skip
        began = time.perf_counter()
        try:
            async with self.session.post(f"{self.url}/v1/chat/completions", json=body) as reply:
                raw = await reply.read()
            window.delays_ms.append((time.perf_counter() - began) * 1000)
            self.told.statuses[reply.status] += 1
            if reply.status != 200:
                window.problems[str(reply.status)] += 1
            elif streamed and not raw.rstrip().endswith(b"data: [DONE]"):
                window.problems["cut stream"] += 1
            elif not streamed:
                record = json.loads(raw)["id"]
                self.told.answers[record] = "stable"
                if number % 10 == 1:
                    await self.rate(record)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
            window.problems[type(error).__name__] += 1

    async def rate(self, record: str) -> None:
        """Send feedback."""
        note = Note(f"note-{record}", {"record_id": record, "rating": "up"})
        headers = {"idempotency-key": note.key}
        async with self.session.post(
            f"{self.url}/v1/feedback", json=note.body, headers=headers
        ) as reply:
            await reply.read()
        if reply.status == 200:
            self.told.acknowledged.append(note)
        else:
            self.window.problems[f"feedback {reply.status}"] += 1

    def take(self) -> Window:
        """Return the window and begin another."""
        window, self.window = self.window, Window()
        return window


async def soak(
    url: str, pid: int, told: Told, *, seconds: float, window_s: float, say: Callable[[Any], None]
) -> tuple[float, list[dict[str, Any]]]:
    """Return (capacity in requests/s, a row a window)."""
    process, rows = psutil.Process(pid), []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        load = Load(session, url, told)
        await load.flood(min(20.0, seconds / 10))
        capacity = min([await load.flood(min(15.0, seconds / 15)) for _ in range(3)])
        load.take()
        began = seen = time.perf_counter()
        pacing = asyncio.create_task(load.pace(capacity * SHARE, began + seconds))
        while not pacing.done():
            done, _ = await asyncio.wait({pacing}, timeout=window_s)
            window, now = load.take(), time.perf_counter()
            if done and rows and now - seen < window_s / 2:
                _fold(rows[-1], window)  # a rest too short to be compared
                continue
            metrics = await _metrics(session, url)
            rows.append(_row(now - began, window, process, metrics, now - seen))
            seen = now
            say(rows[-1])
        await pacing
    return capacity, rows


def _fold(row: dict[str, Any], window: Window) -> None:
    """Add what went wrong in `window` to a row."""
    row["errors"] += sum(window.problems.values())
    row["left_out"] += window.left_out
    row["problems"] += json.dumps(window.problems) if window.problems else ""


def _row(
    at_s: float, window: Window, process: psutil.Process, metrics: dict[str, float], window_s: float
) -> dict[str, Any]:
    delays = sorted(window.delays_ms) or [math.nan]
    return {
        "minute": round(at_s / 60, 2),
        "rps": round(len(delays) / window_s, 1),
        "p50_ms": round(delays[len(delays) // 2], 2),
        "p99_ms": round(delays[int(len(delays) * 0.99)], 2),
        "errors": sum(window.problems.values()),
        "left_out": window.left_out,
        "rss_mb": round(process.memory_info().rss / 2**20, 1),
        "files": process.num_fds(),
        "threads": process.num_threads(),
        "backlog": int(metrics.get("tutelage_log_backlog", 0)),
        "ahead_kb": round(metrics.get("tutelage_log_ahead_bytes", 0) / 1024),
        "problems": json.dumps(window.problems) if window.problems else "",
    }


async def _metrics(session: aiohttp.ClientSession, url: str) -> dict[str, float]:
    """Return the gateway's metrics that have no labels."""
    async with session.get(f"{url}/metrics") as reply:
        text = await reply.text()
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.M)}


def slope(rows: list[dict[str, Any]], name: str) -> float:
    """Return the Theil-Sen slope of a column per hour: the median over all pairs of rows."""
    slopes = [
        (b[name] - a[name]) / (b["minute"] - a["minute"])
        for a, b in combinations(rows, 2)
        if b["minute"] > a["minute"]
    ]
    return statistics.median(slopes) * 60 if slopes else 0.0


def bench(minutes: float, say: Callable[[Any], None], looks: str | None = None) -> dict[str, Any]:
    """Return the benchmark's JSON object; `looks` is how often drift and traffic are looked at."""
    told, port = Told(), free_port()
    window_s = min(60.0, minutes * 60 / 12)
    with tempfile.TemporaryDirectory() as folder, engine_process(port, latency_ms=ENGINE_MS):
        root = Path(folder)
        ctx = gateway_project(root, f"http://127.0.0.1:{port}", concurrency=256, queue=512)
        if looks:
            with (root / "tutelage.yaml").open("a") as settings:
                settings.write(f"drift: {{every: {looks}}}\nfeedback: {{every: {looks}}}\n")
        with GatewayProcess(root) as gateway:
            capacity, rows = asyncio.run(
                soak(gateway.url, gateway.pid, told,
                     seconds=minutes * 60, window_s=window_s, say=say)
            )  # fmt: skip
            gateway.stop()
        kept = audit(ctx.store, told)
        ctx.store.close()
    steady = rows[int(len(rows) * WARM_UP) :] or rows
    third = max(1, len(steady) // 3)
    early = statistics.median(row["p99_ms"] for row in steady[:third])
    late = statistics.median(row["p99_ms"] for row in steady[-third:])
    return {
        "name": "soak",
        "machine": machine(),
        "rows": rows,
        "headline": {
            "minutes": minutes,
            "capacity_rps": round(capacity, 1),
            "rate_rps": round(capacity * SHARE, 1),
            "requests": sum(told.statuses.values()),
            "errors": sum(row["errors"] for row in rows),
            "left_out": sum(row["left_out"] for row in rows),
            "p99_early_ms": early,
            "p99_late_ms": late,
            "p99_drift": round(late / early, 3),
            "rss_mb_per_hour": round(slope(steady, "rss_mb"), 2),
            "files_per_hour": round(slope(steady, "files"), 2),
            "unrecorded": kept.answers_missing,
            "feedback_missing": kept.acknowledged_missing,
            "integrity": kept.integrity,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="two minutes")
    parser.add_argument("--minutes", type=float, help="how long (30)")
    parser.add_argument("--looks", help="time between looks for drift and signals (15m and 5m)")
    options = parser.parse_args()
    minutes = options.minutes or (2.0 if options.quick else 30.0)

    def say(row: dict[str, Any]) -> None:
        if not options.json:
            print(json.dumps(row), flush=True)

    result = bench(minutes, say, options.looks)
    if options.json:
        print(json.dumps(result))
    else:
        print(table(result["rows"]))
        print(json.dumps(result["headline"]))


if __name__ == "__main__":
    main()
