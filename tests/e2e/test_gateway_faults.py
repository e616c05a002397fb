"""Real gateways, broken on purpose: clients hear the truth and what was acknowledged is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench import drills
from tests.postgres_server import running_postgres

Row = dict[str, Any]


def held(row: Row) -> None:
    assert row["held"], f"{row['faults'] or 'records'}: {row}"
    assert row["answered"] > 0


def test_five_kills_under_feedback_load_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    row = drills.kills(tmp_path / "project", count=5)
    held(row)
    assert row["broken"] > 0
    assert row["acknowledged"] >= 50
    assert (row["missing"], row["twice"], row["unrecorded"]) == (0, 0, 0)
    assert row["integrity"] == "ok"


def test_kills_lose_nothing_on_postgresql_either(tmp_path: Path) -> None:
    with running_postgres() as server:
        row = drills.kills(tmp_path / "project", count=1, store_url=server.url)
    held(row)
    assert row["acknowledged"] >= 10


def test_an_engine_killed_in_the_middle_of_streams_is_told_and_overcome(tmp_path: Path) -> None:
    row = drills.engine_killed(tmp_path / "project")
    held(row)
    assert row["refused"] >= 8


@pytest.mark.parametrize(
    "name",
    ["engine too slow", "engine talks garbage", "engine breaks off half an answer"],
)
def test_a_sick_engine_is_an_error_a_client_understands(name: str, tmp_path: Path) -> None:
    behaviour, expected = drills.SICK[name]
    row = drills.sick_engine(tmp_path / "project", name, behaviour, expected)
    held(row)
    assert row["refused"] >= 8


@pytest.mark.parametrize(
    "drill",
    [
        lambda folder: drills.store_locked(folder, seconds=1),
        lambda folder: drills.disk_full(folder, mount=False),
    ],
    ids=["store locked", "disk full"],
)
def test_answers_go_on_while_the_store_takes_nothing(
    drill: Callable[[Path], Row], tmp_path: Path
) -> None:
    held(drill(tmp_path / "project"))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the shifted clock")
def test_a_clock_that_jumps_moves_no_rollout(tmp_path: Path) -> None:
    held(drills.clock_jump(tmp_path / "project"))


@pytest.mark.parametrize("state", ["running", "rolled_back"])
def test_a_gateway_killed_in_a_state_of_a_rollout_goes_on_from_it(
    state: str, tmp_path: Path
) -> None:
    held(drills.killed_in_state(tmp_path / "project", state))
