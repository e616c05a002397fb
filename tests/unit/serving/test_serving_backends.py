"""Several servers behind one gateway: who is asked, what a failure costs, rollouts over them."""

from __future__ import annotations

import itertools
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.fakes.gateway import gateway_project, make_release
from tests.fakes.vllm_server import FakeVllm

from tutelage.core.artifact import hash_file
from tutelage.core.config_deploy import Backend
from tutelage.release.bundle import AdapterRef, create_release, manifest_of
from tutelage.release.deployments import last_rollout, promote, start_rollout
from tutelage.release.rollout import RolloutPlan
from tutelage.release.strategies.rolling import Rolling
from tutelage.serving.backends.backends import Backends
from tutelage.serving.launchers.remote_server import RemoteServer
from tutelage.serving.monitoring.events import read_events
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context
from tutelage.workflows.serving.serve import Serving

R = "a" * 64


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[FakeVllm, FakeVllm]]:
    with FakeVllm() as one, FakeVllm() as two:
        yield one, two


@pytest.fixture
def servers(pair: tuple[FakeVllm, FakeVllm]) -> tuple[FakeVllm, FakeVllm]:
    for server in pair:
        server.fresh()
    return pair


@pytest.fixture
def project(tmp_path: Path, servers: tuple[FakeVllm, FakeVllm]) -> Callable[..., Context]:
    """Return a function that opens a project in front of both servers."""

    def make(**deploy: Any) -> Context:
        names = ("blue", "green")
        settings = {
            "endpoint": None,
            "endpoints": [
                {"name": name, "base_url": server.url, "model": "base"}
                for name, server in zip(names, servers, strict=True)
            ],
            "health_every": 0.05,
            "keep_warm": 0,
            "guards": {},
            "limits": {"latency": 50},  # what is timed here is this machine's load
            **deploy,
        }
        return gateway_project(tmp_path / "project", "http://unused", **settings)

    return make


@cache  # making one takes longer than asking
def client_of(base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0)


def ask(serving: Serving, text: str = "hello", **more: Any) -> str:
    messages: list[Any] = [{"role": "user", "content": text}]
    answer = client_of(serving.base_url).chat.completions.create(
        model="colours", messages=messages, **more
    )
    if more.get("stream"):
        return "".join(e.choices[0].delta.content or "" for e in answer if e.choices)
    return str(answer.choices[0].message.content)


def tuned_release(ctx: Context, name: str) -> ReleaseRow:
    """Return a release with an adapter of its own."""
    folder = ctx.workspace.home / "artifacts" / name
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 8, "note": name}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(name.encode())
    files = {file.name: hash_file(file) for file in folder.iterdir()}
    base = manifest_of(make_release(ctx, "Name the colour family of the thing."))
    adapter = AdapterRef(hash="0" * 64, path=f"artifacts/{name}", files=files)
    manifest = base.model_copy(update={"name": name, "kind": "tuned", "adapter": adapter})
    return create_release(ctx.store, ctx.workspace, manifest, project="colours")


def until(condition: Callable[[], bool], serving: Serving | None = None) -> None:
    """Wait for a condition; with a gateway, by asking it."""
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        if serving is None:
            time.sleep(0.01)
        else:
            ask(serving)


def test_the_least_busy_server_is_asked_and_of_equals_the_longest_unasked() -> None:
    servers = [RemoteServer(Backend(base_url=f"http://s{n}/v1", model="base"), n) for n in range(3)]
    for server in servers:
        server.holds[R] = "base"
    backends = Backends(lambda release: servers)
    taken = [backends.take(R) for _ in range(4)]
    assert [engine.base_url for engine in taken] == [
        "http://s0", "http://s1", "http://s2", "http://s0",
    ]  # fmt: skip
    backends.give(taken[1], reached=True, status=200)
    assert backends.take(R).base_url == "http://s1"
    assert [sum(server.busy.values()) for server in servers] == [2, 1, 1]


def test_a_server_that_keeps_failing_a_release_rests_while_another_has_it() -> None:
    now = [0.0]
    servers = [RemoteServer(Backend(base_url=f"http://s{n}/v1", model="base"), n) for n in range(2)]
    backends = Backends(lambda release: servers, clock=lambda: now[0])

    def rounds(count: int, broken: tuple[str, ...]) -> list[str]:
        seen = []
        for _ in range(count):
            engine = backends.take(R)
            status = 500 if engine.base_url in broken else 200
            backends.give(engine, reached=True, status=status)
            seen.append(engine.base_url)
        return seen

    rounds(10, ("http://s0",))
    assert set(rounds(6, ("http://s0",))) == {"http://s1"}
    now[0] = 10.1  # a second chance
    assert "http://s0" in rounds(2, ("http://s0",))
    rounds(12, ("http://s0", "http://s1"))
    assert set(rounds(4, ("http://s0", "http://s1"))) == {"http://s0", "http://s1"}  # nobody rests


def test_requests_are_shared_and_a_dead_server_costs_none(
    project: Callable[..., Context], servers: tuple[FakeVllm, FakeVllm]
) -> None:
    ctx = project()
    with Serving(ctx) as serving:
        for server in servers:
            server.engine.go.clear()
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(ask, serving, f"number {n}") for n in range(8)]
            until(lambda: all(server.engine.running == 4 for server in servers))
            for server in servers:
                server.engine.go.set()
            texts = [answer.result() for answer in answers]
        assert texts == [f"base answers: number {n}" for n in range(8)]
        servers[0].stop()
        for n in range(6):
            assert ask(serving, f"{n}", stream=n % 2 == 0) == f"base answers: {n}"
        page = urllib.request.urlopen(f"{serving.base_url}/metrics").read().decode()
        assert 'tutelage_backend_up{backend="blue"} 0.0' in page
        assert 'tutelage_backend_up{backend="green"} 1.0' in page
        servers[0].start()
        asked = len(servers[0].engine.asked)
        until(lambda: len(servers[0].engine.asked) > asked, serving)
    events = [(row.kind, row.subject) for row in read_events(ctx.store, kind="backend")]
    assert events == [("backend.down", "blue"), ("backend.up", "blue")]


def test_a_server_without_room_or_without_the_adapter_is_passed_over(
    project: Callable[..., Context], servers: tuple[FakeVllm, FakeVllm]
) -> None:
    with Serving(project()) as serving:
        servers[0].engine.status = 429
        assert {ask(serving, f"{n}") for n in range(4)} == {f"base answers: {n}" for n in range(4)}
        servers[0].engine.status = 200
        servers[1].engine.models = ("another",)  # was restarted with another model
        assert {ask(serving, f"{n}") for n in range(4)} == {f"base answers: {n}" for n in range(4)}
        servers[0].engine.status = 429  # and now nobody has room
        until(lambda: not _answers(serving))
    assert servers[1].engine.asked.count("base") > 0


def _answers(serving: Serving) -> bool:
    try:
        ask(serving)
    except openai.APIStatusError as error:
        assert error.status_code == 503
        return False
    return True


@pytest.mark.parametrize("apart", [False, True])
def test_blue_green_over_two_servers_loses_no_request(
    project: Callable[..., Context], servers: tuple[FakeVllm, FakeVllm], apart: bool
) -> None:
    ctx = project(apart=apart)
    candidate = tuned_release(ctx, "colours-v1")
    done, failed, seen = threading.Event(), [], set()

    def load(serving: Serving) -> None:
        while not done.is_set():
            try:
                seen.add(ask(serving))
            except openai.APIError as error:
                failed.append(error)

    with Serving(ctx) as serving, ThreadPoolExecutor(2) as pool:
        work = [pool.submit(load, serving) for _ in range(2)]
        until(lambda: bool(seen))
        plan = RolloutPlan((100.0,), min_requests=10, min_total=10)
        start_rollout(ctx.store, "colours", candidate.id, plan, strategy="blue_green")

        def state() -> str:
            row = last_rollout(ctx.store, "colours")
            return row.state if row else ""

        until(lambda: state() in ("promoted", "rolled_back"))
        done.set()
        for task in work:
            task.result()
        assert state() == "promoted"
        assert ask(serving) == f"{candidate.id} answers: hello"
        holding = [candidate.id in server.engine.adapters for server in servers]
        assert holding == ([False, True] if apart else [True, True])
    assert failed == []
    assert seen == {"base answers: hello", f"{candidate.id} answers: hello"}


def test_a_rolling_rollout_moves_one_server_after_the_other(
    project: Callable[..., Context], servers: tuple[FakeVllm, FakeVllm]
) -> None:
    blue, green = (server.engine for server in servers)
    ctx = project(min_requests=10_000)
    candidate = tuned_release(ctx, "colours-v1").id
    with Serving(ctx) as serving:
        plan = Rolling().plan(ctx.config.deploy)
        start_rollout(ctx.store, "colours", candidate, plan, strategy="rolling")
        numbers = itertools.count()

        def asks(count: int) -> None:
            for _ in range(count):
                ask(serving, user=f"user-{next(numbers)}")

        until(lambda: asks(1) or blue.asked.count(candidate) >= 5)
        before = blue.asked.count("base"), green.asked.count("base")
        asks(20)
        assert candidate not in green.asked
        assert blue.asked.count("base") == before[0]
        assert green.asked.count("base") > before[1]
        promote(ctx.store, "colours")
        until(lambda: asks(1) or candidate in green.asked)
        before = blue.asked.count("base"), green.asked.count("base")
        asks(10)
        assert (blue.asked.count("base"), green.asked.count("base")) == before
