"""kill -9 of the gateway in the middle of a canary: the next start goes on, nothing is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.gateway import begin_rollout, gateway_project
from tests.fakes.gateway_process import Clients, GatewayProcess, Told, audit
from tests.fakes.openai_backend import FakeBackend

from tutelage.release.routes import journal, last_rollout
from tutelage.store.releases import RolloutRow
from tutelage.workflows.context import Context


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Context]:
    with FakeBackend() as backend:
        ctx = gateway_project(tmp_path / "project", backend.url)
        yield ctx
        ctx.store.close()


def rollout_of(ctx: Context) -> RolloutRow:
    row = last_rollout(ctx.store, "colours")
    assert row is not None
    return row


def test_a_killed_gateway_continues_its_rollout_and_loses_nothing(project: Context) -> None:
    rollout = begin_rollout(project, (20, 50, 100), min_requests=10, min_total=40)
    told, root = Told(), project.workspace.root

    async def until_killed(gateway: GatewayProcess) -> None:
        async def killer() -> None:
            while (row := rollout_of(project)).state != "running" or row.step < 1:
                await asyncio.sleep(0.05)
            gateway.kill()

        await asyncio.gather(Clients(gateway.url, told, count=3).work(lambda: False), killer())

    with GatewayProcess(root) as first:
        asyncio.run(until_killed(first))
    assert told.broken == 3, "every client saw the gateway die"
    before = rollout_of(project)
    assert (before.id, before.state) == (rollout, "running")
    assert before.step >= 1
    assert audit(project.store, told).acknowledged_missing == 0
    assert len(told.acknowledged) >= 30

    with GatewayProcess(root) as second:
        row = rollout_of(project)
        assert (row.id, row.state, row.step) == (rollout, "running", before.step)
        clients = Clients(second.url, told, count=3)
        asyncio.run(clients.work(lambda: rollout_of(project).state == "promoted"))
        assert second.stop() == 0
    moves = journal(project.store, rollout)
    assert rollout_of(project).state == "promoted"
    assert [m.step for m in moves] == sorted(m.step for m in moves), "no step was taken twice"
    assert [m.fence for m in moves] == list(range(1, len(moves) + 1))
    assert audit(project.store, told).whole, "nor is an answered request without a record"


def test_a_stop_flushes_every_record_that_a_client_saw(project: Context) -> None:
    told = Told()
    with GatewayProcess(project.workspace.root) as gateway:
        asyncio.run(Clients(gateway.url, told).work(lambda: len(told.answers) >= 200))
        note = project.workspace.home / "serving.json"
        assert json.loads(note.read_text())["url"] == gateway.url
        assert gateway.stop() == 0
    assert not note.exists()
    assert audit(project.store, told).whole
    assert list((project.workspace.logs / "ahead").iterdir()) == []
