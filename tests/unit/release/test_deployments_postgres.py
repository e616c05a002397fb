"""Deployments on a real PostgreSQL: operators at once, in threads and in processes, one wins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres_server import Postgres, running_postgres
from tests.unit.release.conftest import Home
from tests.unit.release.test_release_deployments import (
    PLAN,
    three_at_once,
    together,
    two_processes,
)

from tutelage.core.workspace import Workspace
from tutelage.release.deployments import ensure_deployment, start_rollout
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
    three_at_once(*two, 10)


def test_two_processes_with_the_same_fence_one_wins(two: tuple[Home, str, str], url: str) -> None:
    home, _, tuned = two
    two_processes(home, url, tuned)
