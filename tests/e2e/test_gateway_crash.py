"""kill -9 of the gateway in the middle of a canary: the next start goes on, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from tests.fakes.gateway import begin_rollout, gateway_project
from tests.fakes.openai_backend import FakeBackend

from tutelage.release.deployments import journal, last_rollout
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.releases import RolloutRow
from tutelage.workflows.context import Context

_GATEWAY = """
import sys
from pathlib import Path
from tutelage.workflows.context import open_context
from tutelage.workflows.serve import run_serve
run_serve(open_context(Path(sys.argv[1])), port=0, on_ready=lambda url: print(url, flush=True))
"""


@dataclass
class Gateway:
    """One life of a gateway process."""

    process: subprocess.Popen[str]
    url: str

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Ask it to drain and end; return its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=60)


@dataclass
class Acknowledged:
    """What clients were told: answers they got, feedback that was acknowledged."""

    answers: list[str] = field(default_factory=list)
    feedback: list[str] = field(default_factory=list)
    broken: int = 0


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Context]:
    with FakeBackend() as backend:
        ctx = gateway_project(tmp_path / "project", backend.url)
        yield ctx
        ctx.store.close()


def start(ctx: Context) -> Gateway:
    command = [sys.executable, "-c", _GATEWAY, str(ctx.workspace.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy())
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("http"), "the gateway did not start"
    return Gateway(process, url)


async def work(
    gateway: Gateway, told: Acknowledged, seconds: float, enough: Callable[[], bool]
) -> None:
    """Ask and give feedback with eight clients until `enough` or the gateway is gone."""
    deadline = time.monotonic() + seconds

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        count = 0
        while time.monotonic() < deadline and not enough():
            count += 1
            body = {
                "model": "colours",
                "messages": [{"role": "user", "content": f"thing {number} {count}"}],
                "user": f"user-{number}-{count}",
            }
            try:
                async with session.post(f"{gateway.url}/v1/chat/completions", json=body) as reply:
                    record = (await reply.json())["id"]
                told.answers.append(record)
                note = {"record_id": record, "rating": "up", "edit": "cold"}
                async with session.post(f"{gateway.url}/v1/feedback", json=note) as reply:
                    if reply.status == 200:
                        told.feedback.append(record)
            except (aiohttp.ClientError, OSError):
                told.broken += 1
                return

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(session, number) for number in range(8)))


def rollout_of(ctx: Context) -> RolloutRow:
    row = last_rollout(ctx.store, "colours")
    assert row is not None
    return row


def kept_feedback(ctx: Context) -> dict[str, set[str]]:
    with ctx.store.session() as session:
        found: dict[str, set[str]] = {}
        for row in session.query(SignalRow):
            found.setdefault(row.record, set()).add(row.kind)
        return found


def test_a_killed_gateway_continues_its_rollout_and_loses_no_acknowledged_feedback(
    project: Context,
) -> None:
    rollout = begin_rollout(project, (20, 50, 100), min_requests=15, min_total=60)
    told = Acknowledged()
    first = start(project)

    def second_step() -> bool:
        row = rollout_of(project)
        return row.state == "running" and row.step >= 1

    async def until_killed() -> None:
        async def assassin() -> None:
            while not second_step():
                await asyncio.sleep(0.05)
            first.kill()

        await asyncio.gather(work(first, told, 60, lambda: False), assassin())

    asyncio.run(until_killed())
    assert told.broken == 8, "every client saw the gateway die"
    before = rollout_of(project)
    assert (before.id, before.state) == (rollout, "running")
    assert before.step >= 1
    kept = kept_feedback(project)
    assert [r for r in told.feedback if kept.get(r) != {"rating", "edit"}] == []
    assert len(told.feedback) >= 30

    second = start(project)
    try:
        row = rollout_of(project)
        assert (row.id, row.state, row.step) == (rollout, "running", before.step)
        asyncio.run(work(second, told, 60, lambda: rollout_of(project).state == "promoted"))
    finally:
        assert second.stop() == 0
    moves = journal(project.store, rollout)
    assert rollout_of(project).state == "promoted"
    assert [m.step for m in moves] == sorted(m.step for m in moves), "no step was taken twice"
    assert [m.fence for m in moves] == list(range(1, len(moves) + 1))
    kept = kept_feedback(project)
    assert [r for r in told.feedback if r not in kept] == []


def test_a_stop_flushes_every_record_that_a_client_saw(project: Context) -> None:
    gateway = start(project)
    told = Acknowledged()
    asyncio.run(work(gateway, told, 60, lambda: len(told.answers) >= 200))
    note = project.workspace.home / "serving.json"
    assert json.loads(note.read_text())["url"] == gateway.url
    assert gateway.stop() == 0
    assert not note.exists()
    with project.store.session() as session:
        kept = {row[0] for row in session.query(RecordRow.id)}
    assert set(told.answers) <= kept
