"""Two gateways, one budget, kill -9 of one of them: not one request too many, none unaccounted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import select, update
from tests.fakes.gateway_process import GatewayProcess
from tests.fakes.limited_project import limited_project
from tests.fakes.openai_backend import FakeBackend

from tutelage.core.artifact import utc_now
from tutelage.serving.access import ledger
from tutelage.serving.access.ledger_book import Book
from tutelage.store.records import RecordRow
from tutelage.store.usage import BudgetRow, HoldRow
from tutelage.workflows.context import Context

_LIMIT = 60
_BEFORE_KILL = 20


def impatient() -> None:
    """Let requests wait for others for a shorter time than people's may."""
    ledger.PATIENCE_S = 1.0


@dataclass
class Told:
    """What clients heard."""

    answers: list[str] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    enough: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Context]:
    with FakeBackend() as backend:
        backend.script.by_model["*"] = {"latency_ms": 20}
        settings = {"budgets": [{"requests": _LIMIT, "per": "total"}]}
        ctx = limited_project(tmp_path / "project", backend.url, settings)
        yield ctx
        ctx.store.close()


async def client(session: aiohttp.ClientSession, url: str, told: Told) -> None:
    """Ask until the budget is used up or the gateway is gone."""
    body = {"model": "colours", "messages": [{"role": "user", "content": "the sun"}]}
    while True:
        try:
            async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
                data: dict[str, Any] = await reply.json()
        except (aiohttp.ClientError, OSError):
            told.codes["broken"] += 1
            return
        if reply.status == 200:
            told.answers.append(data["id"])
            if len(told.answers) >= _BEFORE_KILL:
                told.enough.set()
            continue
        code = data["error"]["code"]
        told.codes[code] += 1
        if code in ("insufficient_quota", "budget_in_use"):
            return


async def crowd(urls: list[str], victim: GatewayProcess, told: Told) -> None:
    async with aiohttp.ClientSession() as session:
        work = [asyncio.create_task(client(session, url, told)) for url in urls * 4]
        await told.enough.wait()
        victim.kill()
        await asyncio.gather(*work)


def test_a_budget_survives_kill_9_of_one_of_two_gateways(project: Context) -> None:
    root = project.workspace.root
    told = Told()
    with (
        GatewayProcess(root, prepare=impatient) as first,
        GatewayProcess(root, prepare=impatient) as second,
    ):
        asyncio.run(crowd([first.url, second.url], first, told))
        assert second.stop() == 0
    assert GatewayProcess(root).stop() == 0  # takes in what the dead one wrote ahead
    with project.store.session() as session:
        open_ = {row.record for row in session.scalars(select(HoldRow))}
        spent = session.scalars(select(BudgetRow.spent)).one()
        known = set(session.scalars(select(RecordRow.id).where(RecordRow.status == 200)))
    assert set(told.answers) <= known
    assert spent + len(open_) == _LIMIT  # what the dead one held was given to nobody else
    assert len(open_) <= 8
    assert len(told.answers) <= _LIMIT
    assert told.codes["broken"] == 4
    with project.store.begin() as session:
        session.execute(update(HoldRow).values(expires_at=utc_now() - timedelta(seconds=1)))
    Book(project.store, lambda row: {"requests": float(row.status == 200)}, "x", 60.0).reclaim()
    with project.store.session() as session:
        assert session.scalars(select(BudgetRow.spent)).one() == _LIMIT
        assert session.scalars(select(HoldRow)).all() == []
