"""How a rollout's moves reach the traffic: real gateways, real requests, and kills at each move.

Gateways run as processes of their own in front of a scripted engine that answers in 20 ms. Rows:

- a decision by an operator (abort, promote) and by evidence (a candidate that fails), with one
  and with two gateways on one store: milliseconds from the journal's time of the decision to the
  end of the last request that the other release answered, and requests that were lost;
- a gateway that ends itself before, or right after, the commit of each move, as kill -9 would:
  seconds from the next start until the rollout is in a legal state and requests are answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.fakes.gateway import gateway_project, make_release
from tests.fakes.openai_backend import FakeBackend

import common
from tutelage.core.artifact import utc_now
from tutelage.release.deployments import abort, journal, last_rollout, promote, start_rollout
from tutelage.release.rollout import RolloutPlan
from tutelage.workflows.context import Context

ROOT = Path(__file__).resolve().parents[1]
ENGINE_MS = 20
CLIENTS = 16
PAUSE_S = 0.02  # between two requests of a client
STEPS = (50.0, 75.0, 100.0)

_GATEWAY = """
import os, sys
from pathlib import Path
from tutelage.serving import controller
from tutelage.workflows.context import open_context
from tutelage.workflows.serving.serve import run_serve
number, when = int(sys.argv[2]), sys.argv[3]
done = [0]
write = controller.apply_transition
def apply_transition(*told):
    done[0] += 1
    if done[0] == number and when == "before":
        os._exit(9)
    row = write(*told)
    if done[0] == number:
        os._exit(9)
    return row
controller.apply_transition = apply_transition
run_serve(open_context(Path(sys.argv[1])), port=0, on_ready=lambda url: print(url, flush=True))
"""


@dataclass
class Seen:
    """What clients saw: (when it ended, status, arm, release, error code)."""

    answers: list[tuple[float, int, str, str, str]] = field(default_factory=list)

    def lost(self) -> int:
        """Return how many requests were not answered with 200."""
        return sum(status != 200 for _, status, *_ in self.answers)

    def last_of(self, release: str) -> float:
        """Return when the last answer of a release ended, Unix seconds; 0 if there was none."""
        return max((at for at, _, _, r, _ in self.answers if r == release[:12]), default=0.0)


class Gateway:
    """One gateway process."""

    def __init__(self, ctx: Context, die_at: int = 0, when: str = "after") -> None:
        command = [sys.executable, "-c", _GATEWAY, str(ctx.workspace.root), str(die_at), when]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | common.QUIET, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def stop(self) -> None:
        """Let it drain and end."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="each case once")
    options = parser.parse_args()
    rows = run(1 if options.quick else 5)
    report = {
        "name": "rollout_moves",
        "machine": common.machine(),
        "rows": rows,
        "headline": headline(rows),
    }
    if options.json:
        print(json.dumps(report))
        return
    for kind in ("decision", "crash"):
        shown = [{k: v for k, v in row.items() if k != "kind"} for row in rows
                 if row["kind"] == kind]  # fmt: skip
        print(f"{common.table(shown)}\n")
    print("\n".join(f"{key} {value}" for key, value in report["headline"].items()))


def run(times: int) -> list[dict[str, Any]]:
    """Return all rows."""
    rows = []
    for name in ("abort", "promote", "fail"):
        for gateways in (1, 2):
            found = [decision(name, gateways) for _ in range(times)]
            rows.append(
                {
                    "kind": "decision",
                    "move": name,
                    "gateways": gateways,
                    "runs": times,
                    "last_answer_ms": round(max(ms for ms, _, _ in found)),
                    "median_ms": round(common.median([ms for ms, _, _ in found])),
                    "requests": sum(count for _, count, _ in found),
                    "lost": sum(lost for _, _, lost in found),
                }
            )
            print(f"{name} with {gateways} gateways done", file=sys.stderr, flush=True)
    for number, name in enumerate(("begin", "step 2", "step 3", "promote"), start=1):
        for when in ("before", "after"):
            found_s = [crash(number, when) for _ in range(times)]
            rows.append(
                {
                    "kind": "crash",
                    "move": name,
                    "gateways": 1,
                    "killed": f"{when} the commit",
                    "runs": times,
                    "legal_after_s": round(max(s for s, _ in found_s), 2),
                    "not_loaded": sum(bad for _, bad in found_s),
                }
            )
            print(f"killed {when} {name} done", file=sys.stderr, flush=True)
    return rows


def headline(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures that the documentation quotes."""
    decisions = [row for row in rows if row["kind"] == "decision"]
    crashes = [row for row in rows if row["kind"] == "crash"]
    return {
        "last_answer_ms": max(row["last_answer_ms"] for row in decisions),
        "lost": sum(row["lost"] for row in decisions),
        "legal_after_crash_s": max(row["legal_after_s"] for row in crashes),
        "sent_to_absent": sum(row["not_loaded"] for row in crashes),
    }


@contextmanager
def project() -> Iterator[tuple[Context, FakeBackend, str]]:
    """Yield a project in front of a scripted engine, with a candidate's id."""
    with tempfile.TemporaryDirectory() as folder, FakeBackend() as backend:
        backend.script.keep = False
        backend.script.by_model["*"] = {"latency_ms": ENGINE_MS}
        ctx = gateway_project(Path(folder) / "project", backend.url)
        candidate = make_release(ctx, "Candidate: name the colour family.").id
        try:
            yield ctx, backend, candidate
        finally:
            ctx.store.close()


def decision(name: str, gateways: int) -> tuple[float, int, int]:
    """Return (ms from the decision to the last answer of the other arm, requests, lost)."""
    with project() as (ctx, backend, candidate):
        most = 10**6 if name != "fail" else 10
        plan = RolloutPlan((50.0, 100.0), min_requests=most, min_total=most)
        rollout = start_rollout(ctx.store, "colours", candidate, plan)
        running = [Gateway(ctx) for _ in range(gateways)]
        seen = Seen()
        moment = [0.0]

        def decide() -> None:
            if name == "fail":
                backend.script.by_model["*"] = {
                    "latency_ms": ENGINE_MS,
                    "when": {"Candidate": {"status": 500}},
                }
                return
            {"abort": abort, "promote": promote}[name](ctx.store, "colours")

        async def go() -> None:
            ended = asyncio.Event()
            work = asyncio.create_task(drive([g.url for g in running], seen, ended))
            await until(lambda: seen.last_of(candidate) > 0)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(decide)
            await until(lambda: last_state(ctx) in ("aborted", "promoted", "rolled_back"))
            moment[0] = journal(ctx.store, rollout.id)[-1].at.timestamp()
            await asyncio.sleep(3.0)
            ended.set()
            await work

        asyncio.run(go())
        for gateway in running:
            gateway.stop()
        gone = rollout.baseline if name == "promote" else candidate
        if name == "fail":  # its own failures are what was decided on
            seen.answers = [a for a in seen.answers if a[1] == 200 or a[2] != "canary"]
            backend_failures = last_record(ctx, candidate)
            return (backend_failures - moment[0]) * 1000, len(seen.answers), seen.lost()
        return (seen.last_of(gone) - moment[0]) * 1000, len(seen.answers), seen.lost()


def crash(number: int, when: str) -> tuple[float, int]:
    """Return (seconds until the next gateway goes on, requests sent to an absent release)."""
    with project() as (ctx, _backend, candidate):
        plan = RolloutPlan(STEPS, min_requests=20, min_total=40)
        start_rollout(ctx.store, "colours", candidate, plan)
        dying = Gateway(ctx, number, when)
        seen = Seen()

        async def go() -> float:
            ended = asyncio.Event()
            work = asyncio.create_task(drive([dying.url], seen, ended))
            await until(lambda: dying.process.poll() is not None)
            ended.set()
            await work
            started = time.monotonic()
            second = await asyncio.to_thread(Gateway, ctx)
            after, ended = Seen(), asyncio.Event()
            work = asyncio.create_task(drive([second.url], after, ended))
            row = last_rollout(ctx.store, "colours")
            assert row is not None
            goes_on = candidate if row.state != "rolled_back" else row.baseline
            await until(lambda: after.last_of(goes_on) > 0)
            took = time.monotonic() - started
            await until(lambda: last_state(ctx) == "promoted")
            ended.set()
            await work
            await asyncio.to_thread(second.stop)
            seen.answers += after.answers
            return took

        took = asyncio.run(go())
        absent = sum(code == "not_loaded" for *_, code in seen.answers)
        return took, absent


async def drive(urls: list[str], seen: Seen, ended: asyncio.Event) -> None:
    """Ask with several clients until `ended`; a gateway that is gone ends its clients."""

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        url = f"{urls[number % len(urls)]}/v1/chat/completions"
        count = 0
        while not ended.is_set():
            count += 1
            body = {
                "model": "colours",
                "messages": [{"role": "user", "content": f"thing {number} {count}"}],
                "user": f"user-{number}-{count}",
            }
            try:
                async with session.post(url, json=body) as reply:
                    answer = await reply.json()
                    code = str((answer.get("error") or {}).get("code", ""))
                    told = reply.headers
                    seen.answers.append(
                        (utc_now().timestamp(), reply.status, told.get("x-tutelage-arm", ""),
                         told.get("x-tutelage-release", ""), code)
                    )  # fmt: skip
            except (aiohttp.ClientError, OSError):
                return
            await asyncio.sleep(PAUSE_S)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(session, number) for number in range(CLIENTS)))


async def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something; raise TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(true):
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.01)


def last_state(ctx: Context) -> str:
    """Return the state of the newest rollout."""
    row = last_rollout(ctx.store, "colours")
    return row.state if row else ""


def last_record(ctx: Context, release: str) -> float:
    """Return when the last request that a release answered, well or not, ended; Unix seconds."""
    from sqlalchemy import func, select

    from tutelage.store.records import RecordRow

    with ctx.store.session() as session:
        newest = session.scalar(select(func.max(RecordRow.at)).where(RecordRow.release == release))
    return newest.timestamp() if newest else 0.0


if __name__ == "__main__":
    main()
