"""One of our own commands as a child: its document comes back, or its own sentence as an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fakes.gateway import gateway_project

from tutelage.core.errors import EnvironmentProblem, TutelageError
from tutelage.workflows.command import run_command


def test_a_command_answers_or_says_why_not(tmp_path: Path) -> None:
    ctx = gateway_project(tmp_path / "p", "http://127.0.0.1:9")
    found = run_command(ctx, "deploy", "list")
    assert [row["name"] for row in found["deployments"]] == ["colours"]
    with pytest.raises(TutelageError, match="there is no deployment 'colors'"):
        run_command(ctx, "deploy", "show", "--", "colors")
    with pytest.raises(EnvironmentProblem, match="took longer than 0 seconds"):
        run_command(ctx, "deploy", "list", timeout_s=0.01)
