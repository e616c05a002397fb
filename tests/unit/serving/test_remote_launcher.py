"""Servers that somebody else runs: adapters in and out, health, several of them, memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.vllm_server import Engine, FakeVllm, metrics_page

from tutelage.core.config_deploy import Backend
from tutelage.core.config_file import parse_config
from tutelage.core.errors import ConfigError, EnvironmentProblem, ModelError
from tutelage.core.workspace import Workspace
from tutelage.serving.launchers.remote import RemoteLauncher
from tutelage.serving.launchers.remote_metrics import Figures, read_figures
from tutelage.serving.launchers.remote_server import Known, RemoteServer

BASE, TUNED, OTHER = "b" * 64, "a" * 64, "c" * 64


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
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter")


def make_adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def backend(server: FakeVllm, **more: Any) -> Backend:
    return Backend(base_url=server.url, model="base", **more)


@asynccontextmanager
async def launched(*backends: Backend, **more: Any) -> Any:
    launcher = RemoteLauncher(backends, **{"health_every_s": 0.02, **more})
    await launcher.start()
    try:
        yield launcher
    finally:
        await launcher.stop()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def looks(server: FakeVllm, count: int) -> None:
    """Wait until a server has been looked at that often."""
    before = server.engine.calls.count("GET /v1/models")
    await until(lambda: server.engine.calls.count("GET /v1/models") >= before + count)


def test_a_refusal_is_not_asked_for_again_at_once(
    servers: tuple[FakeVllm, FakeVllm], adapter: Path
) -> None:
    async def work() -> None:
        one, two = servers
        two.engine.max_lora_rank = 4
        async with launched(backend(one), backend(two)) as launcher:
            await launcher.ensure(TUNED, adapter)
            await looks(two, 5)
            assert two.engine.calls.count(f"load {TUNED}") == 1
            two.stop()
            await until(lambda: not launcher.servers[1].up)
            two.engine.max_lora_rank = 16  # was started with another rank
            two.start()
            await until(lambda: len(launcher.holders(TUNED)) == 2)

    run(work())


def test_an_adapter_is_loaded_under_the_releases_id_and_unloaded(
    servers: tuple[FakeVllm, FakeVllm], adapter: Path
) -> None:
    async def work() -> None:
        async with launched(*map(backend, servers)) as launcher:
            await launcher.ensure(BASE, None)
            await launcher.ensure(TUNED, adapter)
            for server in servers:
                assert server.engine.adapters == {TUNED: str(adapter)}
            assert launcher.name_of(BASE) == "base"
            assert launcher.name_of(TUNED) == TUNED
            await launcher.remove(TUNED)
            assert [server.engine.adapters for server in servers] == [{}, {}]
            assert launcher.holders(TUNED) == []

    run(work())


def test_an_adapter_that_another_gateway_loaded_is_used_and_left_at_the_end(
    servers: tuple[FakeVllm, FakeVllm], adapter: Path
) -> None:
    async def work() -> None:
        one, _ = servers
        async with launched(backend(one)) as first, launched(backend(one)) as second:
            await asyncio.gather(first.ensure(TUNED, adapter), second.ensure(TUNED, adapter))
        assert TUNED in one.engine.adapters
        async with launched(backend(one)) as third:
            loads = one.engine.calls.count(f"load {TUNED}")
            await third.ensure(TUNED, adapter)
            assert one.engine.calls.count(f"load {TUNED}") == loads

    run(work())


def test_a_server_without_the_routes_says_how_to_start_it(adapter: Path) -> None:
    async def work(server: FakeVllm) -> None:
        async with launched(backend(server)) as launcher:
            await launcher.ensure(BASE, None)
            with pytest.raises(ModelError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"):
                await launcher.ensure(TUNED, adapter)
            assert launcher.holders(TUNED) == []

    with FakeVllm(Engine(runtime_lora=False)) as server:
        run(work(server))


def test_what_a_server_refuses_is_told(
    servers: tuple[FakeVllm, FakeVllm], adapter: Path, tmp_path: Path
) -> None:
    async def work() -> None:
        one, _ = servers
        one.engine.max_lora_rank = 4
        async with launched(backend(one)) as launcher:
            with pytest.raises(ModelError, match="rank 8 is greater than max_lora_rank 4"):
                await launcher.ensure(TUNED, adapter)
        one.engine.max_lora_rank = 16
        elsewhere = backend(one, home="/mnt/elsewhere")
        async with launched(elsewhere, home=tmp_path) as launcher:
            with pytest.raises(ModelError, match=r"/mnt/elsewhere/adapter .* `home`"):
                await launcher.ensure(TUNED, adapter)
        moved = backend(one, home=str(tmp_path))
        async with launched(moved, home=tmp_path) as launcher:
            await launcher.ensure(TUNED, adapter)

    run(work())


def test_a_tuned_release_is_never_answered_by_the_base(
    servers: tuple[FakeVllm, FakeVllm], tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "config.json").write_text("{}")
    (whole / "model.safetensors").write_bytes(b"")
    dora = make_adapter(tmp_path / "dora", use_dora=True)

    async def work() -> None:
        one, _ = servers
        known = {TUNED: Known(TUNED, "shop-v1", "tuned")}
        async with launched(backend(one), lookup=known.get) as launcher:
            for folder in (whole, dora):
                with pytest.raises(ModelError, match="no server loads such while it runs"):
                    await launcher.ensure(TUNED, folder)
        one.engine.models = ("base", "shop-v1")
        async with launched(backend(one), lookup=known.get) as launcher:
            await launcher.ensure(TUNED, whole)
            assert launcher.name_of(TUNED) == "shop-v1"

    run(work())


def test_a_server_kept_for_a_release_answers_for_no_other(
    servers: tuple[FakeVllm, FakeVllm], adapter: Path
) -> None:
    async def work() -> None:
        one, two = servers
        kept = backend(two, name="green", release="shop-v1")
        known = {TUNED: Known(TUNED, "shop-v1", "tuned")}
        async with launched(backend(one, name="blue"), kept, lookup=known.get) as launcher:
            await launcher.ensure(BASE, None)
            await launcher.ensure(OTHER, adapter)
            await launcher.ensure(TUNED, adapter)
            assert [s.name for s in launcher.holders(BASE)] == ["blue"]
            assert [s.name for s in launcher.holders(OTHER)] == ["blue"]
            await looks(one, 3)
            assert [s.name for s in launcher.holders(TUNED)] == ["green"]
            assert list(one.engine.adapters) == [OTHER]
            assert two.engine.adapters == {}
        async with launched(kept) as launcher:
            with pytest.raises(EnvironmentProblem, match="each is kept for another release"):
                await launcher.ensure(OTHER, adapter)

    run(work())


def test_a_restarted_server_gets_its_adapters_back_before_it_gets_requests(
    servers: tuple[FakeVllm, FakeVllm], adapter: Path
) -> None:
    async def work() -> None:
        one, two = servers
        told: list[tuple[str, bool]] = []
        async with launched(backend(one, name="one"), backend(two, name="two")) as launcher:
            launcher.on_change = lambda server, up, text: told.append((server.name, up))
            await launcher.ensure(TUNED, adapter)
            one.stop()
            await until(lambda: not launcher.servers[0].up)
            assert [s.name for s in launcher.holders(TUNED)] == ["two"]
            one.engine.restart()
            one.start()
            await until(lambda: launcher.servers[0].up)
            assert one.engine.adapters == {TUNED: str(adapter)}
            assert len(launcher.holders(TUNED)) == 2
            assert told == [("one", False), ("one", True)]

    run(work())


def test_a_restarted_server_does_not_get_an_adapter_that_was_changed(
    servers: tuple[FakeVllm, FakeVllm], adapter: Path
) -> None:
    asked: list[str] = []

    async def changed(release: str) -> None:
        asked.append(release)
        raise ModelError("its adapter was changed")

    async def work() -> None:
        one, _ = servers
        async with launched(backend(one)) as launcher:
            await launcher.ensure(BASE, None)
            await launcher.ensure(TUNED, adapter)
            launcher.check = changed
            one.engine.restart()
            await until(lambda: bool(asked))
            await looks(one, 3)
            assert (asked, one.engine.adapters) == ([TUNED], {})
            assert launcher.answers(BASE) and not launcher.answers(TUNED)

    run(work())


def test_a_server_that_is_unwell_gets_no_requests(servers: tuple[FakeVllm, FakeVllm]) -> None:
    async def work() -> None:
        one, two = servers
        async with launched(backend(one), backend(two)) as launcher:
            await launcher.ensure(BASE, None)
            one.engine.healthy = False
            await until(lambda: len(launcher.holders(BASE)) == 1)
            two.engine.healthy = False
            assert launcher.answers(BASE)  # one of them does
            await until(lambda: not any(server.up for server in launcher.servers))
            assert len(launcher.holders(BASE)) == 2  # better a try than none
            assert not await launcher.health()
            assert not launcher.answers(BASE)
            one.engine.healthy = two.engine.healthy = True
            await until(lambda: all(server.up for server in launcher.servers))
            assert launcher.answers(BASE) and not launcher.answers(TUNED)

    run(work())


def test_one_look_that_fails_says_nothing_of_readiness(
    servers: tuple[FakeVllm, FakeVllm], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with launched(backend(servers[0]), health_every_s=60.0) as launcher:
            await launcher.ensure(BASE, None)
            server = launcher.servers[0]
            servers[0].engine.healthy = False
            await launcher._look(server, doubted=False)
            assert launcher.answers(BASE)
            await launcher._look(server, doubted=False)
            assert not launcher.answers(BASE)

    run(work())


def test_it_starts_with_one_server_of_two_and_not_with_none(
    servers: tuple[FakeVllm, FakeVllm],
) -> None:
    async def work() -> None:
        one, two = servers
        two.stop()
        async with launched(backend(one), backend(two)) as launcher:
            await launcher.ensure(BASE, None)
            assert len(launcher.holders(BASE)) == 1
            two.start()
            await until(lambda: len(launcher.holders(BASE)) == 2)
        one.stop()
        with pytest.raises(EnvironmentProblem, match="can't be reached"):
            await RemoteLauncher([backend(one)]).start()

    run(work())


def test_requests_go_to_the_servers_a_release_is_placed_on(
    servers: tuple[FakeVllm, FakeVllm],
) -> None:
    async def work() -> None:
        async with launched(*map(backend, servers)) as launcher:
            await launcher.ensure(BASE, None)
            await launcher.place({BASE: (1,)})
            assert [s.index for s in launcher.holders(BASE)] == [1]
            servers[1].stop()
            await until(lambda: not launcher.servers[1].up)
            assert [s.index for s in launcher.holders(BASE)] == [0]  # before nobody answers
            await launcher.place({})
            assert [s.index for s in launcher.holders(BASE)] == [0]

    run(work())


def test_apart_each_release_has_servers_of_its_own(
    servers: tuple[FakeVllm, FakeVllm], adapter: Path
) -> None:
    async def work() -> None:
        one, _ = servers
        async with launched(*map(backend, servers), apart=True) as launcher:
            await launcher.ensure(BASE, None)
            await launcher.ensure(TUNED, adapter)
            await looks(one, 3)
            assert [s.index for s in launcher.holders(BASE)] == [0]
            assert [s.index for s in launcher.holders(TUNED)] == [1]
            assert one.engine.adapters == {}
            with pytest.raises(EnvironmentProblem, match="none is free"):
                await launcher.ensure(OTHER, adapter)
            await launcher.remove(BASE)
            await launcher.ensure(OTHER, adapter)
            assert list(one.engine.adapters) == [OTHER]
        async with launched(*map(backend, servers), apart=True) as launcher:
            await launcher.ensure(TUNED, adapter)  # where it was, although the first is free
            assert [s.index for s in launcher.holders(TUNED)] == [1]
            assert list(one.engine.adapters) == [OTHER]

    run(work())


def test_adapters_left_behind_are_unloaded(
    servers: tuple[FakeVllm, FakeVllm], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.serving.launchers.remote._STALE_S", 0.0)
    known = {TUNED: Known(TUNED, "shop-v1", "tuned")}

    async def work() -> None:
        one, _ = servers
        one.engine.adapters = {TUNED: "/ours", OTHER: "/another project's", "static": "/theirs"}
        async with launched(backend(one), lookup=known.get):
            await until(lambda: TUNED not in one.engine.adapters)
        assert set(one.engine.adapters) == {OTHER, "static"}

    run(work())


def test_memory_counts_where_requests_were_put_back(servers: tuple[FakeVllm, FakeVllm]) -> None:
    async def work() -> None:
        one, two = servers
        async with launched(backend(one, name="one"), backend(two, name="two")) as launcher:
            one.engine.kv_cache, one.engine.preemptions = 0.99, 2.0  # put back long ago
            assert (await launcher.stats())["memory"] == {}
            one.engine.preemptions = 3.0
            await launcher.describe()  # to look is not to sample
            assert (await launcher.stats())["memory"] == {"KV cache of one": 0.99}
            assert (await launcher.stats())["memory"] == {}
            assert (await launcher.stats("watch"))["memory"] == {}
            one.engine.preemptions = 4.0  # both who ask hear of it
            for asker in ("", "watch"):
                assert (await launcher.stats(asker))["memory"] == {"KV cache of one": 0.99}
            state = (await launcher.stats())["backends"][0]
            assert state["figures"]["kv_cache"] == 0.99
            assert state["figures"]["gpu_reserved"] == 0.9

    run(work())


def test_what_a_server_can_do_is_asked_without_changing_it(
    servers: tuple[FakeVllm, FakeVllm],
) -> None:
    async def work() -> None:
        one, _ = servers
        server = RemoteServer(backend(one))
        found = await server.about()
        await server.close()
        assert (found["models"], found["version"], found["adapters"]) == (["base"], "0.11.0", True)
        assert one.engine.adapters == {}

    run(work())


def test_the_key_is_sent_to_the_server_alone(
    servers: tuple[FakeVllm, FakeVllm], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_KEY", "sekret")

    async def work() -> None:
        one, _ = servers
        one.engine.api_key = "sekret"
        async with launched(backend(one, api_key_env="ENGINE_KEY")) as launcher:
            await launcher.ensure(BASE, None)
            assert launcher.name_of(BASE) == "base"
        with pytest.raises(EnvironmentProblem, match=r"status 401.*api_key_env"):
            await RemoteLauncher([backend(one)]).start()

    run(work())


def test_figures_of_other_servers_and_of_the_gpu() -> None:
    vllm = read_figures(metrics_page(Engine(kv_cache=0.5, preemptions=2.0)))
    assert vllm == Figures(
        kv_cache=0.5, preemptions=2.0, running=0.0, waiting=0.0, gpu_reserved=0.9
    )
    old = read_figures('vllm:gpu_cache_usage_perc{model_name="m"} 0.75')
    assert old.kv_cache == 0.75
    sglang = read_figures("sglang:token_usage{} 0.3\nsglang:num_running_reqs 4\nbroken line{ 5")
    assert (sglang.kv_cache, sglang.running) == (0.3, 4.0)
    dcgm = read_figures(
        'DCGM_FI_DEV_FB_USED{gpu="0",UUID="x"} 900\nDCGM_FI_DEV_FB_FREE{gpu="0",UUID="x"} 100\n'
        'DCGM_FI_DEV_FB_USED{gpu="1",UUID="y"} 500\nDCGM_FI_DEV_FB_FREE{gpu="1",UUID="y"} 500\n'
    )
    assert dcgm.gpu_memory == 0.9
    assert (
        read_figures("", "<html>no metrics here</html>\nvllm:kv_cache_usage_perc NaN") == Figures()
    )
    # without a count of preemptions a full cache is told as it is
    assert Figures(kv_cache=0.97).memory(None) == {"KV cache": 0.97}


@pytest.mark.parametrize(
    ("deploy", "sentence"),
    [
        ("{endpoint: {base_url: 'gpu:8000', model: m}}", "https?://"),
        ("{endpoints: [{base_url: 'http://a', model: m}, {base_url: 'http://a', model: n}]}",
         "two endpoints are called 'http://a'; give each a name"),
        ("{endpoint: {base_url: 'http://a', model: m}, endpoints: "
         "[{base_url: 'http://b', model: m}]}", "one server as endpoint, or several as endpoints"),
    ],
)  # fmt: skip
def test_settings_that_can_not_be_meant(deploy: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as told:
        parse_config(f"name: page\nmodel: demo\ndeploy: {deploy}\n", "tutelage.yaml")
    assert sentence in told.value.sentence()


def test_without_a_server_the_settings_are_named(tmp_path: Path) -> None:
    project = parse_config("name: page\nmodel: demo\ndeploy: {engine: remote}\n", "tutelage.yaml")
    with pytest.raises(ConfigError, match=r"neither 'deploy\.endpoint' nor 'deploy\.endpoints'"):
        RemoteLauncher.from_project(project, Workspace(tmp_path))
