"""Deployments on a real PostgreSQL: operators at once, in threads and in processes, one wins."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres_server import Postgres, running_postgres
from tests.unit.release.conftest import Home
from tests.unit.release.test_release_deployments import PLAN, begun, operator, together

from tutelage.core.workspace import Workspace
from tutelage.release.deployments import (
    abort,
    active_rollout,
    apply_transition,
    ensure_deployment,
    journal,
    promote,
    route,
    start_rollout,
    state_of,
)
from tutelage.release.rollout import finish
from tutelage.store.base import open_store


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def url(server: Postgres, request: pytest.FixtureRequest) -> str:
    return server.database(f"db{abs(hash(request.node.name))}")


@pytest.fixture
def two(url: str, tmp_path: Path) -> Iterator[tuple[Home, str, str]]:
    """A project on the server with a base and a tuned release, the base serving."""
    workspace = Workspace(tmp_path)
    workspace.create()
    store = open_store(url)
    home = Home(workspace, store)
    base = home.release(kind="base", golden=()).id
    ensure_deployment(store, "shop", base)
    yield home, base, home.release(adapter=home.adapter()).id
    store.close()


def test_of_many_operators_at_once_one_starts(two: tuple[Home, str, str]) -> None:
    home, _, tuned = two
    results = together([lambda: start_rollout(home.store, "shop", tuned, PLAN)] * 6)
    assert sorted(results) == ["Conflict"] * 5 + ["done"]


def test_promote_abort_and_the_controller_at_once_one_wins(two: tuple[Home, str, str]) -> None:
    home, base, tuned = two
    for _ in range(10):
        rollout, _fence = begun(home, tuned if route(home.store, "shop").stable == base else base)
        row = active_rollout(home.store, "shop")
        assert row is not None
        automatic = finish(state_of(row), "rolled_back", "errors")
        assert automatic is not None
        results = together([
            lambda: promote(home.store, "shop"),
            lambda: abort(home.store, "shop"),
            lambda r=row, m=automatic: apply_transition(home.store, r.id, r.fence, m),
        ])  # fmt: skip
        assert sorted(results) == ["Conflict", "Conflict", "done"]
        moves = journal(home.store, rollout)
        assert len(moves) == 2
        promoted = moves[-1].to_state == "promoted"
        assert (route(home.store, "shop").stable == row.candidate) == promoted


def test_two_processes_with_the_same_fence_one_wins(two: tuple[Home, str, str], url: str) -> None:
    home, _, tuned = two
    rollout, fence = begun(home, tuned)
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    workers = [
        spawn.Process(target=operator, args=(url, rollout, fence, to, answers))
        for to in ("promoted", "aborted")
    ]
    for worker in workers:
        worker.start()
    found = sorted(answers.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert found == ["Conflict", "done"]
    assert len(journal(home.store, rollout)) == 2
