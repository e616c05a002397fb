"""What is in the engine: loaded beside traffic, kept while it is needed, faults told once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from tests.fakes.controller import FakeHost
from tests.unit.release.conftest import Home
from tests.unit.release.conftest import home as home

from tutelage.core.config import Deploy
from tutelage.core.errors import EnvironmentProblem, ModelError
from tutelage.release.bundle import manifest_of
from tutelage.release.power import memory_unseen
from tutelage.release.routes import Route
from tutelage.serving.backends.residency import Residency
from tutelage.serving.controller import placement
from tutelage.serving.launchers.base import Check, unchecked
from tutelage.serving.monitoring.engine_memory import EngineMemory, ratios
from tutelage.serving.router import Entry, Profile, Router, build_profile


def profile_of(home: Home, prompt: str) -> Profile:
    row = home.release(prompt=prompt, golden=())
    return build_profile(manifest_of(row), Deploy())


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.001)


def test_a_wanted_release_is_loaded_beside_everything_else(home: Home) -> None:
    async def go() -> None:
        host, inflight = FakeHost(), Counter[str]()
        residency = Residency(host, home.store, home.workspace, inflight, grace_s=0)
        profile = profile_of(home, "one")
        assert residency.want(profile) is False
        await until(lambda: residency.want(profile))
        assert host.held == [profile.id]
        inflight[profile.id] = 1
        await residency.drop_unused(set())
        assert host.held == [profile.id], "a request is under way"
        inflight[profile.id] = 0
        await residency.drop_unused({profile.id})
        assert host.held == [profile.id], "a route names it"
        await residency.drop_unused(set())
        assert host.held == []
        await residency.close()

    asyncio.run(go())


def test_what_no_route_names_stays_for_the_grace_period(home: Home) -> None:
    async def go() -> None:
        host = FakeHost()
        residency = Residency(host, home.store, home.workspace, Counter(), grace_s=3600)
        profile = profile_of(home, "one")
        await residency.load(profile)
        await residency.drop_unused(set())
        assert host.held == [profile.id]

    asyncio.run(go())


@pytest.mark.parametrize(
    ("error", "final"),
    [(ModelError("the adapter is broken"), True), (EnvironmentProblem("it restarts"), False)],
)
def test_a_broken_release_is_a_fault_and_a_busy_engine_is_not_yet(
    home: Home, error: Exception, final: bool
) -> None:
    async def go() -> None:
        host = FakeHost(error=error)
        residency = Residency(host, home.store, home.workspace, Counter(), grace_s=0)
        profile = profile_of(home, "one")
        residency.want(profile)
        await until(lambda: profile.id in residency._failed)
        assert residency.fault(profile.id) == (str(error) if final else None)
        await residency.drop_unused(set())
        assert residency.fault(profile.id) is None, "the next rollout of it begins anew"
        await residency.close()

    asyncio.run(go())


@dataclass
class Restarting(FakeHost):
    """A host that asks before it loads a release again."""

    check: Check = unchecked


def test_a_release_is_checked_by_hash_before_it_is_loaded_again(home: Home) -> None:
    async def go() -> None:
        host = Restarting()
        residency = Residency(host, home.store, home.workspace, Counter(), grace_s=0)
        adapter = home.adapter()
        row = home.release(adapter=adapter, golden=())
        await residency.load(build_profile(manifest_of(row), Deploy()))
        await host.check(row.id)
        assert residency.fault(row.id) is None
        weights = home.workspace.home / adapter.path / "adapter_model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(b"others")
        with pytest.raises(ModelError, match="was changed since it was released"):
            await host.check(row.id)
        assert "was changed since it was released" in str(residency.fault(row.id))
        weights.write_bytes(whole)
        await host.check(row.id)
        assert residency.fault(row.id) is None
        await host.check("nobody's")

    asyncio.run(go())


def route(**changes: object) -> Route:
    values: dict[str, object] = {
        "deployment": "d", "stable": "a", "canary": "b", "weight": 33.333333, "rollout": "r",
        "step": 0, "state": "running", "fence": 1, "replicas": 3,
    }  # fmt: skip
    return Route(**(values | changes))  # type: ignore[arg-type]


def entry(home: Home, found: Route) -> Entry:
    return Entry(found, profile_of(home, "a"), profile_of(home, "b"))


def test_a_rolling_rollout_moves_one_replica_a_step(home: Home) -> None:
    steps = [33.333333, 66.666667, 100.0]
    found = [placement([entry(home, route(weight=weight))]) for weight in steps]
    assert found == [
        {"a": (1, 2), "b": (0,)},
        {"a": (2,), "b": (0, 1)},
        {"a": (2,), "b": (0, 1, 2)},
    ]
    assert placement([entry(home, route(state="pending", weight=0))]) == {}
    assert placement([entry(home, route(replicas=1))]) == {}


def test_a_host_of_replicas_is_told_only_of_changes(home: Home) -> None:
    async def go() -> None:
        host = FakeHost()
        residency = Residency(host, home.store, home.workspace, Counter(), grace_s=0)
        for placed in ({}, {"a": (0,)}, {"a": (0,)}, {}):
            await residency.place(placed)
        assert host.placed == [{"a": (0,)}, {}]

    asyncio.run(go())


def test_without_a_look_at_the_store_all_traffic_is_stable_s(home: Home) -> None:
    router = Router({"d": entry(home, route(weight=100.0, replicas=1))})
    assert router.pick("d", "u").arm == "canary"
    router.renew(-1.0)
    pick = router.pick("d", "u")
    assert (pick.arm, pick.rollout) == ("stable", None)
    router.renew(60.0)
    assert router.pick("d", "u").arm == "canary"


def test_memory_is_sampled_before_the_candidate_and_after() -> None:
    async def go() -> None:
        host = FakeHost(memory={"GPU memory": 0.4})
        memory = EngineMemory(host, every_s=0)
        await memory.before("r")
        host.memory = {"GPU memory": 0.96}
        for _ in range(3):
            await memory.look("r")
        facts = memory.facts("r", "a fault")
        assert facts.memory_before == {"GPU memory": (0.4,)}
        assert facts.memory == {"GPU memory": (0.96, 0.96)}
        assert facts.fault == "a fault"
        assert memory.facts("other").memory == {}

    asyncio.run(go())


def test_a_sample_counts_for_every_rollout_under_way() -> None:
    async def go() -> None:
        memory = EngineMemory(FakeHost(memory={"GPU memory": 0.96}), every_s=3600)
        await memory.look("one")  # samples, and then not again for an hour
        await memory.look("two")
        memory._at = -3600.0
        await memory.look("one")
        assert memory.facts("two").memory == {"GPU memory": (0.96,)}
        memory.keep({"two"})
        assert memory.facts("one").memory == {}
        assert memory.facts("two").memory == {"GPU memory": (0.96,)}

    asyncio.run(go())


def test_twice_running_means_one_after_the_other() -> None:
    async def go() -> None:
        host = FakeHost(memory={"KV cache": 0.99})
        memory = EngineMemory(host, every_s=0)
        await memory.look("r")
        host.memory, host.figures = {}, {"kv_cache": 0.99}  # full, and nobody was put back
        await memory.look("r")
        host.memory = {"KV cache": 0.99}
        await memory.look("r")
        assert memory.facts("r").memory == {"KV cache": (0.99,)}

    asyncio.run(go())


def test_an_engine_that_tells_nothing_of_its_memory_is_known_as_such() -> None:
    async def go() -> None:
        host = FakeHost()
        memory = EngineMemory(host, every_s=0)
        await memory.before("r")
        assert memory.was("r") is None
        assert "does not tell how full it is" in memory_unseen(memory.was("r"))[0]
        host.figures = {"kv_cache": 0.2}
        await memory.before("s")
        assert memory.was("s") == {} and memory_unseen({}) == []

    asyncio.run(go())


def test_an_engine_s_own_memory_is_a_share_of_the_machine_s() -> None:
    assert 0 < ratios({"pss_mb": 100.0})["memory"] < 0.5
    assert ratios({"memory": {"KV cache": 0.5}, "pss_mb": None}) == {"KV cache": 0.5}
