"""The embedded engine's keeper: it says what is wrong, restarts what crashes, leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tutelage.core.config import Project
from tutelage.core.errors import EnvironmentProblem, ModelError
from tutelage.core.plugins import load
from tutelage.core.workspace import Workspace
from tutelage.serving.launchers import embedded
from tutelage.serving.launchers.base import Engine
from tutelage.serving.launchers.embedded import EmbeddedLauncher, pause_s
from tutelage.serving.wire.upstream import Upstream
from tutelage.serving.wire.wire import HttpError


async def _ask(engine: Engine, release: str) -> tuple[int, Any]:
    body = {
        "model": release,
        "messages": [{"role": "user", "content": "Say yes."}],
        "max_tokens": 4,
    }
    async with aiohttp.ClientSession() as session:
        url = f"{engine.base_url}/v1/chat/completions"
        async with session.post(url, json=body) as response:
            answer = await response.json()
            text = answer["choices"][0]["message"]["content"] if response.status == 200 else answer
            return response.status, text


def test_it_is_the_plug_in_named_embedded() -> None:
    assert load("launchers", "embedded") is EmbeddedLauncher


def test_it_is_made_as_the_project_says(tmp_path: Path) -> None:
    deploy = {"threads": 3, "slots": 6, "context": 512, "backend": "llamacpp"}
    project = Project.model_validate({"name": "p", "model": "demo", "deploy": deploy})
    launcher = EmbeddedLauncher.from_project(project, Workspace(tmp_path))
    assert launcher.arguments == [
        "--threads", "3", "--backend", "llamacpp", "--slots", "6", "--context", "512",
    ]  # fmt: skip


def test_pauses_grow_to_a_limit_and_are_spread() -> None:
    longest = [max(pause_s(n) for _ in range(200)) for n in range(12)]
    assert longest[0] <= 0.2 < longest[2] <= 0.8
    assert longest[11] <= 30
    assert len({pause_s(11) for _ in range(20)}) > 10
    assert max(pause_s(500, 0.5) for _ in range(50)) <= 0.5


def test_a_model_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    async def run() -> None:
        launcher = EmbeddedLauncher("absent.gguf", Workspace(tmp_path))
        with pytest.raises(ModelError) as caught:
            await launcher.start()
        assert "there is no file 'absent.gguf'" in str(caught.value)
        assert str(tmp_path) in str(caught.value)  # a relative path counts from the project
        assert not await launcher.health()
        await launcher.stop()

    asyncio.run(run())


def test_an_engine_that_dies_at_once_names_its_last_words_and_its_log(tmp_path: Path) -> None:
    async def run() -> None:
        workspace = Workspace(tmp_path)
        launcher = EmbeddedLauncher("demo", workspace, options=("--frobnicate",))
        with pytest.raises(EnvironmentProblem) as caught:
            await launcher.start()
        assert "the engine ended before it was ready" in str(caught.value)
        assert "unrecognized arguments: --frobnicate" in str(caught.value)
        assert caught.value.where == str(workspace.logs / "engine.log")

    asyncio.run(run())


def test_after_a_restart_what_was_changed_is_not_loaded_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, loaded = {"bad"}, []

    async def check(release: str) -> None:
        if release in changed:
            raise ModelError("its adapter was changed")

    async def launch(port: int) -> Engine:
        return Engine("http://127.0.0.1:1", 1)

    async def load(*told: Any) -> None:
        loaded.append(told[-2])

    async def run() -> None:
        launcher = EmbeddedLauncher("demo", Workspace(tmp_path))
        launcher.log.parent.mkdir(parents=True)
        launcher.check = check
        for name, made in (("_launch", launch), ("_reload", load), ("_load", load)):
            monkeypatch.setattr(launcher, name, made)
        await launcher.ensure("good", None)
        await launcher.ensure("bad", None)
        loaded.clear()
        await launcher._restart(1)
        launcher._up.set()
        assert (loaded, launcher.answers("good"), launcher.answers("bad")) == (
            ["good"],
            True,
            False,
        )
        assert "bad was not loaded again: its adapter was changed" in launcher.log.read_text()
        await launcher._find_lost()
        assert loaded == ["good"]
        changed.clear()
        launcher._lost["bad"] = 0.0
        await launcher._find_lost()
        assert (loaded, launcher.answers("bad")) == (["good", "bad"], True)

    asyncio.run(run())


@pytest.mark.model
def test_a_killed_engine_comes_back_with_its_releases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    came_back: list[Engine] = []

    async def run() -> None:
        launcher = EmbeddedLauncher(
            "demo", Workspace(tmp_path), threads=1, on_restart=came_back.append
        )
        first = await launcher.start()
        try:
            await launcher.ensure("r1", None)
            await launcher.ensure("r1", None)  # again: nothing changes
            await launcher.ensure("gone", None)
            await launcher.remove("gone")
            await launcher.remove("gone")
            with pytest.raises(ModelError, match=r"the adapter has no adapter_config\.json"):
                await launcher.ensure("broken", tmp_path / "nothing")
            before = await _ask(first, "r1")
            assert before[0] == 200
            assert await launcher.health()
            assert os.getpgid(first.pid) != os.getpgid(0), "Ctrl-C would end it before it drains"

            os.kill(first.pid, signal.SIGKILL)
            while not came_back:
                await asyncio.sleep(0.02)
            second = came_back[0]
            assert second.pid != first.pid
            assert second.base_url == first.base_url  # who knew the address still does
            assert await _ask(second, "r1") == before
            assert (await _ask(second, "gone"))[0] == 404
            assert (await launcher.stats())["releases"] == ["r1"]
            assert launcher.restarts == 1
        finally:
            await launcher.stop()
        assert not await launcher.health()
        assert not psutil.pid_exists(came_back[0].pid)

    asyncio.run(run())
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.model
def test_an_engine_that_hangs_or_dies_comes_back_and_no_cut_off_answer_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, it neither answers nor ends. bench/engine_kills.py kills it fifty times."""
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(embedded, "_LOOK_S", 0.05)
    monkeypatch.setattr(embedded, "_LOOK_TIMEOUT_S", 1.0)
    body = {
        "model": "r1",
        "messages": [{"role": "user", "content": "Tell a story."}],
        "max_tokens": 24,
    }

    async def run() -> None:
        back = asyncio.Event()
        launcher = EmbeddedLauncher(
            "demo", Workspace(tmp_path), threads=1, on_restart=lambda engine: back.set()
        )
        engine = await launcher.start()
        upstream = Upstream(lambda: launcher.engine.base_url if launcher.engine else "")
        await upstream.start()
        try:
            await launcher.ensure("r1", None)
            expected = (await upstream.complete(body)).text
            os.kill(engine.pid, signal.SIGSTOP)
            hanging = asyncio.create_task(_whole(upstream, body))
            await asyncio.wait_for(back.wait(), 60)
            assert await asyncio.wait_for(hanging, 60) in (expected, None)
            assert "was killed" in launcher.log.read_text()

            whole = asyncio.create_task(_whole(upstream, body))
            with pytest.raises(HttpError):
                async with aclosing(upstream.stream(body)) as pieces:
                    async for _ in pieces:
                        if launcher.engine is not None:
                            os.kill(launcher.engine.pid, signal.SIGKILL)
            assert await asyncio.wait_for(whole, 60) in (expected, None)  # asked again, or refused
            while (await _whole(upstream, body)) != expected:
                await asyncio.sleep(0.05)
        finally:
            await upstream.close()
            await launcher.stop()

    asyncio.run(run())


@pytest.mark.model
def test_an_engine_that_freezes_while_it_unloads_is_killed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(embedded, "_LOOK_S", 0.1)
    monkeypatch.setattr(embedded, "_LOOK_TIMEOUT_S", 0.5)
    monkeypatch.setattr(embedded, "_LOADING_S", 2.0)

    async def run() -> None:
        launcher = EmbeddedLauncher("demo", Workspace(tmp_path), threads=1)
        engine = await launcher.start()
        try:
            await launcher.ensure("r1", None)
            os.kill(engine.pid, signal.SIGSTOP)
            await asyncio.wait_for(launcher.remove("r1"), 60)
            assert launcher.restarts == 1
            assert (await launcher.stats())["releases"] == []
        finally:
            await launcher.stop()

    asyncio.run(run())


async def _whole(upstream: Upstream, body: dict[str, Any]) -> str | None:
    try:
        return (await upstream.complete(body)).text
    except HttpError:
        return None


@pytest.mark.model
def test_a_release_asked_for_during_a_restart_is_there_after_it(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")

    async def run() -> None:
        launcher = EmbeddedLauncher("demo", Workspace(tmp_path), threads=1)
        engine = await launcher.start()
        try:
            os.kill(engine.pid, signal.SIGKILL)
            await launcher.ensure("r1", None)
            assert launcher.engine is not None
            assert (await _ask(launcher.engine, "r1"))[0] == 200
        finally:
            await launcher.stop()

    asyncio.run(run())


@pytest.mark.model
def test_a_release_that_a_restart_could_not_load_is_loaded_as_soon_as_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(embedded, "_LOOK_S", 0.05)

    async def away(*arguments: Any) -> None:
        raise ModelError("its disk is away")

    async def run() -> None:
        launcher = EmbeddedLauncher("demo", Workspace(tmp_path), threads=1)
        monkeypatch.setattr(launcher, "_reload", away)
        engine = await launcher.start()
        try:
            await launcher.ensure("r1", None)
            os.kill(engine.pid, signal.SIGKILL)
            async with asyncio.timeout(60):
                while "is loaded again" not in launcher.log.read_text():
                    await asyncio.sleep(0.02)
            assert "r1 was not loaded again: its disk is away" in launcher.log.read_text()
            assert launcher.engine is not None
            assert (await _ask(launcher.engine, "r1"))[0] == 200
        finally:
            await launcher.stop()

    asyncio.run(run())
