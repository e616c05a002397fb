"""Hosted models are called in time, once, and what came of it is shown."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.fakes.gateway import gateway_project
from tests.fakes.hosted_project import config, usual
from tests.fakes.jobs_server import KEY, JobsServer
from tests.fakes.vllm_server import Engine, FakeVllm
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.config_deploy import Backend
from tutelage.serving.backends.keep_alive import KeepAlive, Kept, KeptEndpoint
from tutelage.serving.monitoring.events import EventLog, read_events
from tutelage.store.base import open_store
from tutelage.training.hosted.base import Pace
from tutelage.workflows.context import open_context
from tutelage.workflows.serving.keep_alive import kept_models
from tutelage.workflows.serving.serve import Serving
from tutelage.workflows.training.hosted_jobs import HostedDesk

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def endpoint(server: FakeVllm, file: Path, **more: Any) -> KeptEndpoint:
    return KeptEndpoint(Backend(base_url=server.url, model="base", name="one"), file, "7d", **more)


def keeper_of(kept: Kept, now: Callable[[], datetime], events: EventLog | None = None) -> KeepAlive:
    """Return a keeper whose schedule has not begun."""
    keeper = KeepAlive(lambda: [kept], events or EventLog(), now=now)
    keeper.kept["one"] = kept
    return keeper


def test_it_is_called_when_due_and_a_restart_knows(tmp_path: Path) -> None:
    file = tmp_path / "kept" / "one.json"

    async def work(server: FakeVllm) -> None:
        now = [NOON]
        keeper = keeper_of(endpoint(server, file), lambda: now[0])
        assert await keeper.look("one")
        assert not await keeper.look("one")
        now[0] = NOON + 6 * DAY
        again = keeper_of(endpoint(server, file), lambda: now[0])
        assert not await again.look("one")
        assert again.kept["one"].pulse().as_dict()["due_at"] == "2026-01-08T12:00:00+00:00"
        now[0] = NOON + 7 * DAY
        assert await again.look("one")
        assert server.engine.asked == ["base", "base"]
        now[0] = NOON - 30 * DAY  # the clock was set back: the last success is no help
        assert await again.look("one")
        file.write_text("not JSON")
        assert await again.look("one")

    with FakeVllm() as server:
        run(work(server))


def test_a_real_request_counts_as_a_call(tmp_path: Path) -> None:
    async def work(server: FakeVllm) -> None:
        kept = endpoint(server, tmp_path / "one.json", answered=lambda: NOON + 5 * DAY)
        keeper = keeper_of(kept, lambda: NOON + 11 * DAY)
        assert not await keeper.look("one")
        assert kept.pulse().last_success == NOON + 5 * DAY
        assert server.engine.asked == []
        elsewhere = endpoint(server, tmp_path / "one.json")  # `tutelage status`
        assert elsewhere.pulse().last_success == NOON + 5 * DAY

    with FakeVllm() as server:
        run(work(server))


def test_a_failure_is_tried_again_and_told_once(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    events = EventLog(store)
    events.start()

    async def work(server: FakeVllm) -> None:
        server.engine.models = ("another",)
        kept = endpoint(server, tmp_path / "one.json")
        keeper = keeper_of(kept, lambda: NOON, events)
        assert await keeper.look("one")
        assert await keeper.look("one")
        problem = kept.pulse().problem
        assert problem is not None
        assert "status 404" in problem
        server.engine.models = ("base",)
        assert await keeper.look("one")
        assert kept.pulse().problem is None
        assert not await keeper.look("one")

    with FakeVllm() as server:
        run(work(server))
    events.close()
    rows = read_events(store, kind="keep_alive")
    assert [(row.kind, row.subject) for row in rows] == [
        ("keep_alive.failed", "one"), ("keep_alive.ok", "one"),
    ]  # fmt: skip
    store.close()


def test_the_schedule_calls_by_itself_and_takes_up_new_models(tmp_path: Path) -> None:
    async def work(server: FakeVllm) -> None:
        def kept(model: str) -> KeptEndpoint:
            backend = Backend(base_url=server.url, model=model)
            return KeptEndpoint(backend, tmp_path / f"{model}.json", "1s")

        def asked(model: str) -> int:
            return server.engine.asked.count(model)

        models = [kept("base")]
        keeper = KeepAlive(lambda: models, EventLog())
        await keeper.start()
        async with asyncio.timeout(60):
            while asked("base") < 2:
                await asyncio.sleep(0.02)
            models[:] = [kept("newer")]
            await keeper.refresh()
            while not asked("newer"):
                await asyncio.sleep(0.02)
        assert [key.split()[0] for key in keeper.kept] == ["newer"]
        await keeper.close()
        await keeper.close()

    with FakeVllm(Engine(models=("base", "newer"))) as server:
        run(work(server))


def test_a_gateway_keeps_its_server_and_shows_it(tmp_path: Path) -> None:
    with FakeVllm(Engine()) as server:
        ctx = gateway_project(
            tmp_path / "project", server.url, keep_alive="7d", health_every=0.05, guards={}
        )
        with Serving(ctx) as serving:
            _until(lambda: server.engine.asked == ["base"])
            client = openai.OpenAI(base_url=f"{serving.base_url}/v1", api_key="unused")
            client.chat.completions.create(
                model="colours", messages=[{"role": "user", "content": "hi"}]
            )
            shown = urllib.request.urlopen(f"{serving.base_url}/admin/keep-alive").read()
            row = json.loads(shown)["data"][0]
            assert (row["model"], row["every"], row["problem"]) == ("base", "7d", None)
            assert row["last_success"] is not None
        done = CliRunner().invoke(app, ["status", "--project", str(ctx.workspace.root)])
        assert "kept alive" in done.stdout
        assert "every 7d: last answered" in " ".join(done.stdout.split())
        ctx.store.close()


def test_the_tuned_models_of_hosted_jobs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBS_KEY", KEY)
    with JobsServer() as server:
        server.fresh()
        settings = config(server, ", keep_alive: 7d")
        (tmp_path / "tutelage.yaml").write_text(settings, encoding="utf-8")
        ctx = open_context(tmp_path)
        assert kept_models(ctx) == []
        desk = HostedDesk(ctx, Pace(0, 0))
        desk.start(usual(ctx), yes=True)
        desk.watch()
        desk.fetch()

        async def work() -> None:
            (kept,) = kept_models(ctx)
            keeper = keeper_of(kept, lambda: NOON)
            assert await keeper.look("one")
            assert not await keeper.look("one")
            found = kept.pulse()
            assert found.last_success == NOON
            assert found.due_at == NOON + 7 * DAY
            assert found.model.startswith("ft:")

        run(work())
        assert [p["due_at"] for p in desk.pings(NOON)] == ["2026-01-08T12:00:00+00:00"]
        ctx.store.close()


def _until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)
