"""What goes wrong on purpose: real gateways that are killed, starved, lied to and locked out.

Each drill runs a gateway process with clients that ask and rate, breaks one thing, mends it, and
holds the store against what the clients were told: no acknowledged feedback missing, none twice,
every answered request on record, every error one that a client understands. `held` says so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
from tests.fakes.gateway import begin_rollout, gateway_project
from tests.fakes.gateway_process import (
    Clients,
    GatewayCommand,
    GatewayProcess,
    Told,
    audit,
    read_stream,
)
from tests.fakes.openai_backend import FakeBackend

from common import machine, table
from tutelage.release import deployments as moves
from tutelage.release.routes import journal, last_rollout
from tutelage.workflows.context import Context

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]
UNDERSTOOD = {200, 429, 502, 503, 504}
DAY_S = 86_400


async def load(url: str, told: Told, enough: Callable[[], bool], **options: Any) -> None:
    """Ask and rate with eight clients, or `count`, until `enough()`."""
    await Clients(url, told, **options).work(enough)


def more(told: Told, answers: int) -> Callable[[], bool]:
    """Return whether so many more answers came and all feedback is acknowledged."""
    goal = told.statuses[200] + answers
    return lambda: told.statuses[200] >= goal and not told.open


def report(drill: str, ctx: Context, told: Told, faults: list[str], *, killed: bool) -> Row:
    """Return a drill's row; `faults` are what did not hold besides what the store shows."""
    kept = audit(ctx.store, told)
    strange = set(told.statuses + told.feedback_statuses) - UNDERSTOOD - {0}
    faults += [f"a client got {status}" for status in sorted(strange)]
    if told.broken and not killed:
        faults.append(f"{told.broken} connections broke")
    if told.unreached:
        faults.append("what was waited for did not come in two minutes")
    return {
        "drill": drill,
        "held": kept.whole and not faults,
        "answered": told.statuses[200],
        "refused": sum(n for s, n in told.statuses.items() if s not in (0, 200)),
        "broken": told.broken,
        "acknowledged": kept.acknowledged,
        "retried": told.retried,
        "missing": kept.acknowledged_missing,
        "twice": kept.duplicates,
        "unrecorded": kept.answers_missing,
        "integrity": kept.integrity,
        "faults": "; ".join(faults),
    }


def kills(folder: Path, *, count: int, seed: int = 0, store_url: str | None = None) -> Row:
    """kill -9 the gateway `count` times under load, at random moments.

    The store is SQLite in the project unless `store_url` names another.
    """
    rng, told, restarts = random.Random(seed), Told(), []
    with FakeBackend() as backend, using_store(store_url) as prepare:
        backend.script.keep = False
        ctx = gateway_project(folder, backend.url)
        for _ in range(count):
            began = time.monotonic()
            with GatewayProcess(folder, prepare=prepare) as gateway:
                restarts.append(time.monotonic() - began)
                asyncio.run(_until_killed(gateway, told, rng))
        with GatewayProcess(folder, prepare=prepare) as last:
            asyncio.run(load(last.url, told, more(told, 20)))
            last.stop()
    row = report(f"gateway killed {count} times", ctx, told, [], killed=True)
    return row | {"slowest_start_s": round(max(restarts), 2)}


@contextlib.contextmanager
def using_store(url: str | None) -> Iterator[Callable[[], None] | None]:
    """Let this process use the store at `url`; yield what makes a gateway process do so too."""
    if url is None:
        yield None
        return
    name_store(url)
    try:
        yield partial(name_store, url)
    finally:
        del os.environ["TUTELAGE_STORE_URL"]


def name_store(url: str) -> None:
    """Let this process use the store at `url`."""
    os.environ["TUTELAGE_STORE_URL"] = url


async def _until_killed(gateway: GatewayProcess, told: Told, rng: random.Random) -> None:
    goal = len(told.acknowledged) + rng.randint(10, 60)

    async def killer() -> None:
        while len(told.acknowledged) < goal:
            await asyncio.sleep(0.001)
        await asyncio.sleep(rng.random() * 0.02)
        gateway.kill()

    await asyncio.gather(load(gateway.url, told, lambda: False), killer())


@contextlib.contextmanager
def one_gateway(folder: Path, **deploy: Any) -> Iterator[tuple[Context, FakeBackend, str, int]]:
    """Yield (project, engine, address, pid) of a running gateway; it is stopped in order."""
    with FakeBackend() as backend:
        backend.script.keep = False
        ctx = gateway_project(folder, backend.url, **deploy)
        with GatewayProcess(folder) as gateway:
            yield ctx, backend, gateway.url, gateway.pid
            gateway.stop()


def sick_engine(folder: Path, name: str, behaviour: Row, expected: int) -> Row:
    """Let the engine misbehave for whole answers and streams, then behave again."""
    told, endings = Told(), []
    with one_gateway(folder, timeout=1) as (ctx, backend, url, _):
        asyncio.run(load(url, told, more(told, 20)))
        backend.script.by_model["*"] = behaviour
        goal = told.statuses[expected] + 8
        asyncio.run(load(url, told, lambda: told.statuses[expected] >= goal))
        endings = asyncio.run(_streams(url, 3))
        backend.script.by_model["*"] = {}
        asyncio.run(load(url, told, more(told, 20)))
    complete = [text for ending, text in endings if ending == "complete"]
    faults = [f"{text!r} was marked complete" for text in complete if text != WHOLE]
    if set(told.statuses) - {200, expected}:
        faults.append(f"clients got {dict(told.statuses)}, not {expected}")
    if told.slowest_s > 10:
        faults.append(f"a client waited {told.slowest_s:.0f} s")
    return report(name, ctx, told, faults, killed=False)


async def _streams(url: str, count: int) -> list[tuple[str, str]]:
    return await asyncio.gather(*(read_stream(url, f"stream {n}") for n in range(count)))


WHOLE = '{"family": "warm"}'
SICK: dict[str, tuple[Row, int]] = {
    "engine too slow": ({"latency_ms": 30_000}, 504),
    "engine talks garbage": ({"raw": b'\x00\xff{"choices": [{]'}, 502),
    "engine answers an empty object": ({"raw": b"{}"}, 502),
    "engine breaks off half an answer": ({"die": "half"}, 502),
    "engine fails": ({"status": 500}, 502),
}


def engine_killed(folder: Path) -> Row:
    """kill -9 the engine under load, in the middle of streams; start it again."""
    port = free_port()
    told, endings = Told(), []
    with engine_process(port, gap_ms=200) as engine:
        ctx = gateway_project(folder, f"http://127.0.0.1:{port}")
        gateway = GatewayProcess(folder)
        asyncio.run(load(gateway.url, told, more(told, 20)))

        async def streams() -> None:
            async def killer() -> None:
                await asyncio.sleep(0.1)
                engine.kill()

            asked = [read_stream(gateway.url, f"stream {n}") for n in range(4)]
            endings.extend((await asyncio.gather(*asked, killer()))[:-1])

        asyncio.run(streams())
        goal = told.statuses[503] + 8
        asyncio.run(load(gateway.url, told, lambda: told.statuses[503] >= goal))
    with gateway, engine_process(port):
        began = time.monotonic()
        goal_ok = told.statuses[200] + 1
        asyncio.run(load(gateway.url, told, lambda: told.statuses[200] >= goal_ok))
        back_s = time.monotonic() - began
        asyncio.run(load(gateway.url, told, more(told, 20)))
        gateway.stop()
    faults = [f"{text!r} was marked complete" for end, text in endings
              if end == "complete" and text != WHOLE]  # fmt: skip
    if back_s > 5:
        faults.append(f"the first answer took {back_s:.1f} s")
    return report("engine killed", ctx, told, faults, killed=False)


def store_locked(folder: Path, *, seconds: float) -> Row:
    """Hold the store's write lock: answers go on, feedback is late or refused, nothing is lost."""
    told, during = Told(), Told()
    with one_gateway(folder) as (ctx, _, url, _):
        asyncio.run(load(url, told, more(told, 20)))
        lock = sqlite3.connect(folder / ".tutelage" / "store.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")

        async def while_locked() -> None:
            rating = asyncio.create_task(load(url, told, more(told, 50)))
            deadline = time.monotonic() + seconds
            await _ask_only(url, during, lambda: time.monotonic() > deadline)
            lock.execute("ROLLBACK")
            await rating

        asyncio.run(while_locked())
        lock.close()
    faults = ["no answer came while the store was locked"] if during.statuses[200] < 5 else []
    if during.slowest_s > 2:
        faults.append(f"an answer took {during.slowest_s:.1f} s")
    told.answers |= during.answers
    told.statuses += during.statuses
    return report(f"store locked for {seconds:g} s", ctx, told, faults, killed=False)


async def _ask_only(url: str, told: Told, enough: Callable[[], bool]) -> None:
    async with aiohttp.ClientSession() as session:
        while not enough():
            body = {"model": "colours", "messages": [{"role": "user", "content": "only asked"}]}
            began = time.monotonic()
            async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
                answer = await reply.json()
            told.statuses[reply.status] += 1
            told.slowest_s = max(told.slowest_s, time.monotonic() - began)
            if reply.status == 200:
                told.answers[answer["id"]] = reply.headers["x-tutelage-arm"]


def disk_full(folder: Path, *, mount: bool) -> Row:
    """Fill the disk: answers go on, feedback is refused at once; then make room."""
    told, during = Told(), Told()
    with _small_disk(folder, mount=mount) as disk:
        with one_gateway(folder) as (ctx, _, url, pid):
            asyncio.run(load(url, told, more(told, 20)))
            disk.fill(pid)
            goal = told.feedback_statuses[503] + 8
            asyncio.run(load(url, told, lambda: told.feedback_statuses[503] >= goal))
            asyncio.run(_ask_only(url, during, lambda: during.statuses[200] >= 50))
            disk.free(pid)
            asyncio.run(load(url, told, more(told, 50)))
        told.answers |= during.answers
        told.statuses += during.statuses
        row = report("disk full", ctx, told, [], killed=False)
        ctx.store.close()
        return row


class _Tmpfs:
    """A file system of 12 MB over the project's folder."""

    def __init__(self, folder: Path) -> None:
        self.ballast = folder / "ballast"

    def fill(self, pid: int) -> None:
        with contextlib.suppress(OSError), self.ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def free(self, pid: int) -> None:
        self.ballast.unlink()


class _Limit:
    """The gateway's files may not grow: a full disk where nothing can be mounted."""

    def fill(self, pid: int) -> None:
        psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (4096, psutil.RLIM_INFINITY))

    def free(self, pid: int) -> None:
        unlimited = (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY)
        psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, unlimited)


@contextlib.contextmanager
def _small_disk(folder: Path, *, mount: bool) -> Iterator[_Tmpfs | _Limit]:
    if not mount:
        yield _Limit()
        return
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], check=True)
    try:
        yield _Tmpfs(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def clock_jump(folder: Path) -> Row:
    """Set the clock two days ahead and four back during a rollout, which must go on."""
    told, shift = Told(), folder.parent / f"{folder.name}.shift"
    library = build_clock_shift(folder.parent)
    shift.write_bytes(struct.pack("q", 0))
    with FakeBackend() as backend:
        backend.script.keep = False
        ctx = gateway_project(folder, backend.url)
        begin_rollout(ctx, (50, 100), min_requests=60, min_total=120)
        environment = {"LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": str(shift)}
        with GatewayCommand(folder, environment) as gateway:
            asyncio.run(load(gateway.url, told, lambda: "canary" in _sides(told), count=3))
            for days in (2, -2):
                with shift.open("r+b") as file:
                    file.write(struct.pack("q", days * DAY_S))
                until = time.monotonic() + 1.5  # the controller looks twice a second
                asyncio.run(load(gateway.url, told, lambda u=until: time.monotonic() > u, count=3))
            with shift.open("r+b") as file:
                file.write(struct.pack("q", 0))
            asyncio.run(load(gateway.url, told, lambda: _state(ctx) == "promoted", count=3))
            gateway.stop()
    faults = [] if _state(ctx) == "promoted" else [f"the rollout ended {_state(ctx)}"]
    return report("clock two days ahead, then two back", ctx, told, faults, killed=False)


def build_clock_shift(folder: Path) -> Path:
    """Return the library that moves a process's clock; raise RuntimeError without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("there is no C compiler")
    library = folder / "clock_shift.so"
    source = ROOT / "tests" / "fakes" / "clock_shift.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    return library


STATES = ("pending", "running", "paused", "promoted", "rolled_back", "aborted")


def killed_in_state(folder: Path, state: str) -> Row:
    """kill -9 the gateway in one state of a rollout; the next life must go on from it."""
    told, faults = Told(), []
    with FakeBackend() as backend:
        backend.script.keep = False
        if state == "pending":  # the golden prompts wait for the engine
            backend.script.by_model["*"] = {"when": {"Candidate": {"latency_ms": 500}}}
        never = {"alpha": 1e-9}  # an equal candidate is stopped by bad luck: not asked here
        ctx = gateway_project(folder, backend.url, limits=never)
        with GatewayProcess(folder) as gateway:
            asyncio.run(load(gateway.url, told, more(told, 10), users=40))
            rollout = begin_rollout(ctx, (50, 100), min_requests=10_000, min_total=20_000)
            _reach(ctx, state, gateway.url, told)
            gateway.kill()
        before, arms = _state(ctx), {user: set(seen) for user, seen in told.arms.items()}
        told.arms.clear()
        backend.script.by_model.clear()
        with GatewayProcess(folder) as gateway:
            asyncio.run(load(gateway.url, told, more(told, 120), users=40))
            gateway.stop()
        after = _state(ctx)
    if before != state and not (state == "pending" and before == "running"):
        faults.append(f"it was killed in {before}, not in {state}")
    if after != before and (before, after) != ("pending", "running"):
        faults.append(f"{before} became {after}")
    faults += _wrong_arms(before, after, arms, told.arms)
    fences = [move.fence for move in journal(ctx.store, rollout)]
    if fences != list(range(1, len(fences) + 1)):
        faults.append(f"the journal's fences are {fences}")
    return report(f"gateway killed while {state}", ctx, told, faults, killed=True)


def _reach(ctx: Context, state: str, url: str, told: Told) -> None:
    """Bring the rollout into `state` under load."""
    if state == "pending":
        return
    asyncio.run(load(url, told, lambda: "canary" in _sides(told), users=40))
    told.arms.clear()
    move = {
        "paused": moves.pause, "promoted": moves.promote, "aborted": moves.abort,
        "rolled_back": moves.rollback,
    }.get(state)  # fmt: skip
    if move is not None:
        move(ctx.store, "colours")
    asyncio.run(load(url, told, more(told, 60), users=40))


def _sides(told: Told) -> set[str]:
    return set().union(*told.arms.values())


def _wrong_arms(before: str, after: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what is wrong with the split after the kill."""
    seen = set().union(*new.values())
    if after in ("promoted", "rolled_back", "aborted"):
        return [] if seen == {"stable"} else [f"after {after} clients were sent to {seen}"]
    if before == "pending":
        return []
    flipped = [u for u in old if u in new and len(old[u]) == 1 and new[u] != old[u]]
    faults = [f"{len(flipped)} users changed sides"] if flipped else []
    return faults if seen == {"stable", "canary"} else [*faults, f"only {seen} answered"]


def _state(ctx: Context) -> str:
    row = last_rollout(ctx.store, "colours")
    return row.state if row else "none"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def engine_process(
    port: int, *, gap_ms: int = 0, latency_ms: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield the scripted engine as a process on `port`."""
    command = [sys.executable, "-m", "tests.fakes.openai_backend", "--port", str(port)]
    command += ["--stream-gap-ms", str(gap_ms), "--latency-ms", str(latency_ms)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if time.monotonic() > deadline:
                raise RuntimeError("the engine did not start")
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def drills(folder: Path, *, count: int, lock_s: float) -> Iterator[Callable[[], Row]]:
    """Yield every drill, ready to run in a folder of its own."""
    yield lambda: kills(folder / "kills", count=count)
    yield lambda: engine_killed(folder / "engine")
    for number, (name, (behaviour, expected)) in enumerate(SICK.items()):
        yield lambda n=number, a=name, b=behaviour, e=expected: sick_engine(
            folder / f"sick{n}", a, b, e
        )
    yield lambda: store_locked(folder / "locked", seconds=lock_s)
    yield lambda: disk_full(folder / "full", mount=_can_mount())
    yield lambda: clock_jump(folder / "clock")
    for state in STATES:
        yield lambda s=state: killed_in_state(folder / s, s)


def _can_mount() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="ten kills, a short lock")
    parser.add_argument("--kills", type=int, help="kill the gateway so many times (100)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the scripted engine tells of its scripted failures
    count = options.kills or (10 if options.quick else 100)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for drill in drills(Path(folder), count=count, lock_s=4 if options.quick else 25):
            rows.append(drill())
            if not options.json:
                print(table(rows[-1:]), flush=True)
    result = {
        "name": "drills",
        "machine": machine(),
        "rows": rows,
        "headline": {
            "held": sum(row["held"] for row in rows),
            "drills": len(rows),
            "kills": count,
            "acknowledged": rows[0]["acknowledged"],
            "missing": sum(row["missing"] for row in rows),
            "twice": sum(row["twice"] for row in rows),
        },
    }
    if options.json:
        print(json.dumps(result))
    else:
        print(table(rows))
        print(json.dumps(result["headline"]))


if __name__ == "__main__":
    main()
