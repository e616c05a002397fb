"""Ways of moving traffic and an operator's hand on them, through a running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.fakes.controller import NOWHERE, FakeHost, bare_controller
from tests.fakes.gateway import begin_rollout, gateway_project, make_release
from tests.fakes.openai_backend import FakeBackend, Script
from tests.unit.serving.conftest import Running
from tests.unit.serving.test_serving_app import fetch
from tests.unit.serving.test_serving_controller import drive

from tutelage.core.artifact import utc_now
from tutelage.core.errors import ModelError
from tutelage.release.deployment_names import create_deployment
from tutelage.release.deployments import (
    abort,
    ensure_deployment,
    rollback,
    start_rollout,
    switch,
)
from tutelage.release.rollout import Counts, RolloutPlan
from tutelage.release.routes import active_rollout, journal, last_rollout, route
from tutelage.serving.access.key_store import create_key
from tutelage.serving.controller import Controller
from tutelage.serving.monitoring.events import EventLog, Happening
from tutelage.store.records import RecordRow
from tutelage.store.releases import DeploymentRow, RolloutRow
from tutelage.workflows.context import Context

Start = Callable[..., Running]
CANDIDATE = "Candidate: name the colour family."


def begin(running: Running, **body: Any) -> tuple[int, Any]:
    candidate = make_release(running.ctx, CANDIDATE)
    return fetch(f"{running.url}/admin/rollouts", {"release": candidate.name, **body})[:2]


def move(running: Running, rollout: str, word: str) -> tuple[int, Any]:
    return fetch(f"{running.url}/admin/rollouts/{rollout}/{word}", {})[:2]


def test_blue_green_is_judged_on_copies_then_switches_and_keeps_the_way_back(
    gateway: Start,
) -> None:
    running = gateway(min_requests=5, min_total=15, strategy="blue_green")
    status, started = begin(running)
    assert (status, started["strategy"], started["state"]) == (200, "blue_green", "pending")
    row = drive(running, lambda row: row.state == "promoted")
    moves = journal(running.ctx.store, row.id)
    assert [(m.to_state, m.weight) for m in moves] == [
        ("running", 0.0), ("running", 100.0), ("promoted", 100.0),
    ]  # fmt: skip
    assert "mirrored requests at 100 % held" in moves[1].reason
    now = route(running.ctx.store, "colours")
    assert (now.stable, now.previous) == (row.candidate, row.baseline)
    arms = [r.arm for r in running.records() if r.rollout == row.id]
    first = arms.index("canary")
    assert set(arms[:first]) <= {"stable", "shadow"}
    assert set(arms[first + 1 :]) <= {"canary", "shadow"}, "one switch, no share in between"


def test_an_ab_holds_its_split_and_its_users(gateway: Start) -> None:
    running = gateway(min_requests=5, min_total=10, split=40)
    rollout = begin(running, strategy="ab")[1]["id"]
    drive(running, lambda row: row.state == "running")
    looks = iter(range(6))  # of ten requests each: all forty users, so that both arms have some
    drive(running, lambda row: next(looks) == 5)
    row = active_rollout(running.ctx.store, "colours")
    assert row is not None and (row.state, row.step) == ("running", 0)
    assert move(running, rollout, "promote")[1]["state"] == "promoted"
    seen: dict[str, set[str]] = {}
    for record in running.records():
        if record.rollout == rollout and record.user is not None:
            seen.setdefault(record.user, set()).add(record.arm)
    assert {len(arms) for arms in seen.values()} == {1}, "a user keeps the arm"
    assert {arm for arms in seen.values() for arm in arms} == {"stable", "canary"}


def test_rolling_moves_one_backend_after_the_other(gateway: Start, backend: FakeBackend) -> None:
    with FakeBackend() as other:
        servers = [{"base_url": b.url, "model": "base"} for b in (backend, other)]
        running = gateway(endpoint=None, endpoints=servers, min_requests=8, min_total=16)
        status, started = begin(running, strategy="rolling")
        assert (status, started["steps"]) == (200, [50.0, 100.0])
        drive(running, lambda row: _shares(backend.script)["Candidate"] > 0)
        for script in (backend.script, other.script):
            script.seen.clear()
        drive(running, lambda row: row.step == 1 or row.state == "promoted")
        first, second = _shares(backend.script), _shares(other.script)
        row = drive(running, lambda row: row.state == "promoted")
        assert first["Candidate"] > 0 and second["stable"] > 0
        assert first["stable"] == 0, "the first backend is the candidate's from its step on"
        records = running.records()
    assert {r.status for r in records} == {200}, "no request was lost on the way"
    assert {r.arm for r in records if r.rollout == row.id} == {"stable", "canary"}


def _shares(script: Script) -> dict[str, int]:
    prompts = [body["messages"][0]["content"] for body in script.seen]
    candidates = sum(text.startswith("Candidate") for text in prompts)
    return {"Candidate": candidates, "stable": len(prompts) - candidates}


def test_an_operator_pauses_resumes_and_rolls_back(gateway: Start) -> None:
    running = gateway(lambda ctx: begin_rollout(ctx, min_requests=10_000))
    row = drive(running, lambda row: row.state == "running")
    assert move(running, row.id, "resume")[0] == 409, "it does not stand still"
    now = fetch(f"{running.url}/admin/rollouts/{row.id}")[1]
    assert now["verdict"] in ("pass", "no_data") and now["reasons"] and "unseen" in now
    assert move(running, row.id, "pause")[1]["state"] == "paused"
    for _ in range(3):
        drive(running, lambda row: True)
    held = active_rollout(running.ctx.store, "colours")
    assert held is not None and held.state == "paused"
    assert move(running, row.id, "resume")[1]["state"] == "running"
    status, answer = move(running, row.id, "rollback")
    assert (status, answer["state"], answer["weight"]) == (200, "rolled_back", 0)
    assert answer["journal"][-1]["reason"] == "rolled back by the local user over HTTP"
    assert fetch(f"{running.url}/admin/rollouts/{row.id}")[1]["id"] == row.id
    assert "verdict" not in fetch(f"{running.url}/admin/rollouts/{row.id}")[1]
    status, answer = move(running, row.id, "dance")
    assert (status, "Known: promote, abort" in answer["error"]["message"]) == (404, True)


def test_a_rollout_that_can_t_be_started_says_why(gateway: Start) -> None:
    running = gateway()
    status, answer = begin(running, strategy="blue-green")
    assert status == 400 and "Did you mean 'blue_green'?" in answer["error"]["message"]
    status, answer = begin(running, strategy="rolling")
    assert status == 400 and "needs two backends or more" in answer["error"]["message"]
    status, answer = begin(running, deployment="nothing")
    assert status == 404 and "there is no deployment 'nothing'" in answer["error"]["message"]
    status, answer, _ = fetch(f"{running.url}/admin/rollouts", {})
    assert status == 400 and 'Send {"release": "NAME"}' in answer["error"]["message"]


def test_a_start_takes_its_shares_and_refuses_what_it_does_not_know(gateway: Start) -> None:
    running = gateway()
    for asked, says in (
        ({"split": 120}, "split 120 can't be used"),
        ({"steps": [50, 5]}, "must rise and end with 100"),
        ({"split": 20}, "the strategy canary has no split"),
        ({"step": [5, 100]}, "Did you mean 'steps'?"),
    ):
        status, answer = begin(running, **asked)
        assert (status, says in answer["error"]["message"]) == (400, True), answer
    assert begin(running, strategy="ab", split=20)[1]["steps"] == [20]
    row = active_rollout(running.ctx.store, "colours")
    assert row is not None
    move(running, row.id, "abort")
    started = begin(running, steps=[5, 100])[1]
    assert started["steps"] == [5, 100]
    assert move(running, started["id"], "promote")[1]["state"] == "promoted"
    status, answer = move(running, started["id"], "rollback")  # to the release before
    assert (status, answer["strategy"], answer["candidate"]) == (200, "rollback", row.baseline)
    assert move(running, started["id"], "rollback")[0] == 409
    again, before = begin(running)[1]["id"], started["candidate"]
    assert move(running, again, "abort")[0] == 200
    status, told = move(running, again, "rollback")
    assert (status, f"{again} was already aborted" in told["error"]["message"]) == (409, True)
    status, told = move(running, again, f"rollback?to={before}")  # it is meant
    assert (status, told["candidate"]) == (200, before)


def test_a_key_of_one_deployment_moves_no_other_s_rollouts(gateway: Start) -> None:
    bearer: dict[str, str] = {}

    def prepare(ctx: Context) -> None:
        create_deployment(ctx.store, "other", make_release(ctx, CANDIDATE).id)
        secret = create_key(ctx.store, "op", "operator", deployments=["other"])
        bearer["authorization"] = f"Bearer {secret}"

    running = gateway(prepare)
    rollout, url = begin_rollout(running.ctx), f"{running.url}/admin"
    assert fetch(f"{url}/rollouts", **bearer)[1]["data"] == []
    assert fetch(f"{url}/rollouts/{rollout}", **bearer)[0] == 404
    assert fetch(f"{url}/rollouts/{rollout}/abort", {}, **bearer)[0] == 404
    body = {"release": "colours-base"}
    assert fetch(f"{url}/rollouts", {**body, "deployment": "colours"}, **bearer)[0] == 404
    for path in ("usage", "events", "deployments"):
        assert fetch(f"{url}/{path}", **bearer)[0] == 403
    assert fetch(f"{running.url}/metrics", **bearer)[0] == 403
    status, started, _ = fetch(f"{url}/rollouts", {**body, "deployment": "other"}, **bearer)
    assert (status, started["deployment"]) == (200, "other")
    assert [row["id"] for row in fetch(f"{url}/rollouts", **bearer)[1]["data"]] == [started["id"]]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Context]:
    ctx = gateway_project(tmp_path / "project", NOWHERE)
    yield ctx
    ctx.store.close()


def test_the_release_before_stays_loaded_for_a_while(project: Context) -> None:
    async def go() -> None:
        host = FakeHost()
        controller, state = bare_controller(project, host)
        candidate = make_release(project, CANDIDATE).id
        await controller.sync(first=True)
        stable = state.router.entries["colours"].stable.id
        await controller.residency.load(state.router.entries["colours"].stable)
        switch(project.store, "colours", candidate)
        async with asyncio.timeout(60):
            while state.router.entries["colours"].stable.id != candidate:
                await controller.sync()
                await asyncio.sleep(0.001)
        controller.residency._grace_s = 0.0
        await controller.sync()
        assert set(host.held) == {stable, candidate}, "a return takes no loading"
        with project.store.begin() as session:
            row = session.get_one(DeploymentRow, "colours")
            row.updated_at = utc_now() - timedelta(hours=2)
        await controller.sync()
        assert host.held == [candidate]
        await controller.residency.close()

    asyncio.run(go())


def test_a_slow_load_holds_nobody_up(project: Context) -> None:
    class SlowHost(FakeHost):
        async def ensure(self, release_id: str, adapter: Path | None) -> None:
            await go_on.wait()
            await super().ensure(release_id, adapter)

    go_on = asyncio.Event()

    async def go() -> None:
        go_on.set()
        host = SlowHost()
        controller, state = bare_controller(project, host)
        candidate = make_release(project, CANDIDATE).id
        other = make_release(project, "Another.").id
        ensure_deployment(project.store, "other", candidate)
        await controller.sync(first=True)
        start_rollout(project.store, "other", other, RolloutPlan((50.0, 100.0)))
        go_on.clear()
        await controller.sync()
        entry = state.router.entries["other"]
        assert (entry.route.state, entry.canary) == ("pending", None)
        abort(project.store, "other")
        await controller.sync()
        assert state.router.entries["other"].route.rollout is None
        go_on.set()
        await controller.residency.close()

    asyncio.run(go())


def test_a_clock_that_jumps_is_no_silence(project: Context) -> None:
    controller, _ = bare_controller(project, FakeHost())
    start = begin_rollout(project)
    row = last_rollout(project.store, "colours")
    assert row is not None and row.id == start
    jumped = controller._patient(row, Counts(0, 0, quiet_s=1e9))
    assert jumped.quiet_s < 60
    assert controller._patient(row, Counts(0, 0, quiet_s=0.0)).quiet_s == 0


def test_a_crash_of_the_engine_ends_the_rollout_at_once(project: Context) -> None:
    async def go() -> None:
        host = FakeHost()
        controller, _ = bare_controller(project, host)
        begin_rollout(project)
        await controller.sync(first=True)
        async with asyncio.timeout(60):
            while (row := last_rollout(project.store, "colours")) and row.state == "pending":
                await controller.tick()
        await controller.tick()
        host.restarts += 1
        await controller.tick()
        row = last_rollout(project.store, "colours")
        assert row is not None and row.state == "rolled_back"
        moves = journal(project.store, row.id)
        assert moves[-1].reason == "the engine crashed during the rollout"
        await controller.residency.close()

    asyncio.run(go())


def test_a_stable_release_that_can_t_be_loaded_is_told_and_the_one_before_answers(
    project: Context,
) -> None:
    told: list[Happening] = []

    async def go() -> None:
        host = FakeHost()
        controller, state = bare_controller(project, host)
        state.events = EventLog(told=told.append)
        await controller.sync(first=True)
        before = state.router.entries["colours"].stable.id
        host.error = ModelError("the server takes no adapters")
        switch(project.store, "colours", make_release(project, CANDIDATE).id)
        async with asyncio.timeout(60):
            while not told:
                await controller.tick()
                await asyncio.sleep(0)
        assert state.router.entries["colours"].stable.id == before
        again, _ = bare_controller(project, host)
        with pytest.raises(ModelError, match=r"stable release of colours.*release rollback"):
            await again.sync(first=True)
        host.error = None
        rollback(project.store, "colours")
        await controller.tick()
        await controller.tick()
        await controller.residency.close()

    asyncio.run(go())
    assert [item.kind for item in told] == ["release.missing", "release.loaded"]
    assert "colours-base-v2, the stable release of colours, can't be loaded" in told[0].message


def test_memory_that_was_full_before_a_restart_stops_nobody(project: Context) -> None:
    """A GPU that vLLM filled at its start is full before and after the gateway's restart."""

    async def judged(controller: Controller, looks: int) -> RolloutRow:
        await controller.sync(first=True)
        async with asyncio.timeout(60):
            while (row := last_rollout(project.store, "colours")) and row.state == "pending":
                await controller.tick()
        for _ in range(looks):
            controller.memory._at = -3600.0
            await controller.tick()
        row = last_rollout(project.store, "colours")
        assert row is not None
        await controller.residency.close()
        return row

    async def go() -> None:
        begin_rollout(project)
        for _ in range(2):  # a gateway, and the one after its restart
            controller, _ = bare_controller(project, FakeHost(memory={"GPU memory": 0.97}))
            row = await judged(controller, 3)
            assert row.state == "running"
        moves = journal(project.store, row.id)
        assert moves[0].evidence["memory_before"] == {"GPU memory": 0.97}

    asyncio.run(go())


def test_records_say_which_arm_answered(gateway: Start) -> None:
    running = gateway(lambda ctx: begin_rollout(ctx, (50, 100), min_requests=5, min_total=10))
    drive(running, lambda row: row.state == "promoted")
    running.records()
    with running.ctx.store.session() as session:
        arms = set(session.scalars(select(RecordRow.arm)))
    assert arms == {"stable", "canary"}
