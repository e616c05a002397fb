"""A process that dies at any point of any move of a rollout leaves what the next goes on from.

Each move runs in a process of its own that ends itself (as kill -9 does) before the transaction
writes, between writing and committing, or right after the commit. Then a controller takes over.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session
from tests.fakes.controller import NOWHERE, FakeHost, bare_controller
from tests.fakes.gateway import gateway_project, make_release

from tutelage.release import deployments as changes
from tutelage.release.rollout import ACTIVE, TERMINAL, Counts, RolloutPlan, advance, begin, finish
from tutelage.release.routes import active_rollout, journal, last_rollout, rollouts, state_of
from tutelage.release.verdict import StepVerdict
from tutelage.serving.state import GatewayState
from tutelage.store.base import Store, open_store
from tutelage.store.releases import DeploymentRow
from tutelage.workflows.context import Context

DIED = 9
POINTS = {"begun": "after_begin", "written": "after_flush", "committed": "after_commit"}
PLAN = RolloutPlan((50.0, 100.0), min_requests=1, min_total=1)
PASS, FAIL = StepVerdict("pass"), StepVerdict("fail", ("errors: many",))


def _moved(store: Store, verdict: StepVerdict) -> None:
    row = active_rollout(store, "colours")
    assert row is not None
    move = begin(state_of(row)) or advance(state_of(row), verdict, Counts(9, 9))
    assert move is not None
    changes.apply_transition(store, row.id, row.fence, move)


def _fault(store: Store) -> None:
    row = active_rollout(store, "colours")
    assert row is not None
    move = finish(state_of(row), "rolled_back", "the engine crashed")
    assert move is not None
    changes.apply_transition(store, row.id, row.fence, move)


# A move, and the moves that lead to it.
MOVES: dict[str, tuple[tuple[str, ...], Callable[[Store, str], object]]] = {
    "start": ((), lambda s, c: changes.start_rollout(s, "colours", c, PLAN)),
    "begin": (("start",), lambda s, c: _moved(s, PASS)),
    "step": (("start", "begin"), lambda s, c: _moved(s, PASS)),
    "pause": (("start", "begin"), lambda s, c: changes.pause(s, "colours")),
    "resume": (("start", "begin", "pause"), lambda s, c: changes.resume(s, "colours")),
    "promote by evidence": (("start", "begin", "step"), lambda s, c: _moved(s, PASS)),
    "promote by hand": (("start",), lambda s, c: changes.promote(s, "colours")),
    "fail": (("start", "begin", "step"), lambda s, c: _moved(s, FAIL)),
    "hard fault": (("start",), lambda s, c: _fault(s)),
    "abort": (("start", "begin"), lambda s, c: changes.abort(s, "colours")),
    "switch": ((), lambda s, c: changes.switch(s, "colours", c)),
    "roll back": (("switch",), lambda s, c: changes.rollback(s, "colours")),
}


def _do(url: str, move: str, candidate: str, point: str | None) -> None:
    """Do one move in this process, and end it at the point."""
    store = open_store(url, migrate=False)
    if point is not None:
        event.listen(Session, POINTS[point], lambda *told: os._exit(DIED))
    MOVES[move][1](store, candidate)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Context]:
    ctx = gateway_project(tmp_path / "project", NOWHERE)
    yield ctx
    ctx.store.close()


@pytest.mark.parametrize("move", MOVES)
def test_a_crash_anywhere_in_a_move_leaves_it_done_or_not_begun(
    project: Context, move: str
) -> None:
    candidate = make_release(project, "Candidate: name the colour family.").id
    url = str(project.store.engine.url)
    fork = multiprocessing.get_context("fork")
    for before in MOVES[move][0]:
        MOVES[before][1](project.store, candidate)
    for point in POINTS:
        was = _facts(project)
        child = fork.Process(target=_do, args=(url, move, candidate, point))
        child.start()
        child.join(60)
        assert child.exitcode == DIED, f"{move}: it was to die when {point}"
        _require_legal(project)
        changed = _facts(project) != was
        assert changed == (point == "committed"), f"{move}: half of it is there"
        asyncio.run(_take_over(project, candidate))


def _facts(ctx: Context) -> tuple[object, ...]:
    """Return all that a move could change."""
    with ctx.store.session() as session:
        row = session.get_one(DeploymentRow, "colours")
        where = (row.stable, row.previous)
    newest = last_rollout(ctx.store, "colours")
    count = len(rollouts(ctx.store))
    if newest is None:
        return (where, count)
    return (where, count, newest.id, newest.state, newest.step, newest.fence)


def _require_legal(ctx: Context) -> None:
    with ctx.store.session() as session:
        assert session.execute(text("PRAGMA integrity_check")).scalar() == "ok"
        stable = session.get_one(DeploymentRow, "colours").stable
    active = [row for row in rollouts(ctx.store) if row.state in ACTIVE]
    assert len(active) <= 1
    for row in rollouts(ctx.store):
        moves = journal(ctx.store, row.id)
        assert row.state in (*ACTIVE, *TERMINAL)
        assert [m.fence for m in moves] == list(range(1, row.fence + 1))
        assert (moves[-1].to_state if moves else "pending") == row.state
        if row.state in ACTIVE:
            assert row.baseline == stable


async def _take_over(ctx: Context, candidate: str) -> None:
    """Start a controller on what was left: every user is sent to a release that is loaded."""
    host = FakeHost()
    controller, state = bare_controller(ctx, host)
    await controller.sync(first=True)
    _require_present(state, host)
    row = active_rollout(ctx.store, "colours")
    if row is None:
        return
    async with asyncio.timeout(60):
        while candidate not in host.held:
            await asyncio.sleep(0.001)
            await controller.sync()
            _require_present(state, host)
    entry = state.router.entries["colours"]
    assert (entry.route.state, entry.route.weight) == (row.state, state_of(row).weight)
    await controller.residency.close()


def _require_present(state: GatewayState, host: FakeHost) -> None:
    for user in range(50):
        assert state.router.pick("colours", f"user-{user}").profile.id in host.held
