"""Rollouts on live traffic: promotion on evidence, rollback on failure, sticky users."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from tests.fakes.gateway import begin_rollout, make_release
from tests.unit.serving.conftest import Running

from tutelage.release.deployments import active_rollout, journal, last_rollout, route
from tutelage.store.releases import RolloutRow

Start = Callable[..., Running]


def drive(running: Running, until: Callable[[RolloutRow], bool], most: int = 20_000) -> RolloutRow:
    """Send requests of many users until the newest rollout meets `until`; return it."""

    async def go() -> RolloutRow:
        async with aiohttp.ClientSession() as client:
            for start in range(0, most, 10):
                await asyncio.gather(
                    *(ask(client, running, f"user-{(start + i) % 40}") for i in range(10))
                )
                row = last_rollout(running.ctx.store, "colours")
                if row is not None and until(row):
                    return row
        pytest.fail(f"after {most} requests the rollout is {row.state if row else None}")

    return asyncio.run(go())


async def ask(client: aiohttp.ClientSession, running: Running, user: str) -> dict[str, Any]:
    body = {
        "model": "colours",
        "messages": [{"role": "user", "content": f"the thing of {user}"}],
        "user": user,
    }
    async with client.post(f"{running.url}/v1/chat/completions", json=body) as response:
        return {"status": response.status, "arm": response.headers.get("x-tutelage-arm")}


def test_a_good_candidate_is_promoted_step_by_step(gateway: Start) -> None:
    running = gateway(begin_rollout)
    row = drive(running, lambda row: row.state == "promoted")
    moves = journal(running.ctx.store, row.id)
    assert [(m.to_state, m.weight) for m in moves] == [
        ("running", 50.0), ("running", 100.0), ("promoted", 100.0),
    ]  # fmt: skip
    assert route(running.ctx.store, "colours").stable == row.candidate
    records = running.records()
    of_canary = [r for r in records if r.arm == "canary"]
    assert len(of_canary) >= 20
    assert {r.release for r in of_canary} == {row.candidate}
    assert {r.rollout for r in of_canary} == {row.id}
    assert running.script.seen[-1]["messages"][0]["content"].startswith("Candidate")


def test_a_candidate_that_fails_is_rolled_back_and_stable_goes_on(gateway: Start) -> None:
    running = gateway(begin_rollout)
    running.script.by_model["*"] = {"when": {"Candidate": {"status": 500}}}
    row = drive(running, lambda row: row.state == "rolled_back")
    last = journal(running.ctx.store, row.id)[-1]
    assert "first 5 requests all failed" in last.reason
    assert route(running.ctx.store, "colours").stable == row.baseline
    running.script.by_model.clear()
    answer = running.client().chat.completions.create(
        model="colours", messages=[{"role": "user", "content": "x"}]
    )
    assert answer.choices[0].message.content


def test_a_candidate_that_can_t_be_loaded_is_rolled_back_before_any_request(
    gateway: Start,
) -> None:
    def prepare(ctx: Any) -> None:
        begin_rollout(ctx)
        candidate = make_release(ctx, "Candidate: name the colour family.")
        with ctx.store.begin() as session:
            row = session.get(type(candidate), candidate.id)
            row.manifest = {**row.manifest, "prompt": "tampered"}

    running = gateway(prepare)
    row = drive(running, lambda row: row.state == "rolled_back")
    assert "can't be loaded" in journal(running.ctx.store, row.id)[-1].reason
    assert {r.arm for r in running.records()} == {"stable"}


def test_raising_the_weight_never_flips_a_user_back(gateway: Start) -> None:
    running = gateway(lambda ctx: begin_rollout(ctx, (30, 60, 100)))
    drive(running, lambda row: row.step >= 1)
    for _ in range(4):  # every user once more, now that the weight is higher
        drive(running, lambda row: True)
    seen: dict[str, list[str]] = {}
    for record in running.records():
        if record.rollout is not None and record.user is not None:
            seen.setdefault(record.user, []).append(record.arm)
    assert max(len(arms) for arms in seen.values()) > 1
    for arms in seen.values():  # stable first, then canary, never back
        assert arms == sorted(arms, reverse=True)


def test_an_operator_aborts_and_promotes_over_http(gateway: Start) -> None:
    from tests.unit.serving.test_serving_app import fetch

    running = gateway(lambda ctx: begin_rollout(ctx, min_requests=100_000))
    row = drive(running, lambda row: row.state == "running")
    shown = fetch(f"{running.url}/admin/rollouts")[1]["data"][0]
    assert (shown["id"], shown["state"], shown["weight"]) == (row.id, "running", 50.0)
    assert shown["journal"][0]["reason"] == "the candidate is ready"
    status, answer, _ = fetch(f"{running.url}/admin/rollouts/{row.id}/abort", {})
    assert (status, answer["state"]) == (200, "aborted")
    assert active_rollout(running.ctx.store, "colours") is None
    assert fetch(f"{running.url}/admin/rollouts/{row.id}/promote", {})[0] == 409
    assert fetch(f"{running.url}/admin/rollouts/nothing/promote", {})[0] == 404
    second = begin_rollout(running.ctx)
    status, answer, _ = fetch(f"{running.url}/admin/rollouts/{second}/promote", {})
    assert (status, answer["state"]) == (200, "promoted")
    body = {"model": "colours", "messages": [{"role": "user", "content": "x"}]}
    fetch(f"{running.url}/v1/chat/completions", body)
    assert running.script.seen[-1]["messages"][0]["content"].startswith("Candidate")
    assert running.records()[-1].release == answer["candidate"]


def test_records_of_a_rollout_carry_both_arms_at_once(gateway: Start) -> None:
    running = gateway(begin_rollout)
    drive(running, lambda row: row.state == "promoted")
    first = [r for r in running.records() if r.step == 0 and r.rollout]
    assert {r.arm for r in first} == {"stable", "canary"}
    share = sum(r.arm == "canary" for r in first) / len(first)
    assert 0.2 < share < 0.8
