"""Runs one of our own commands in a child process and returns what it prints with --json.

For work that takes seconds and memory, so that a process that answers people stays quick.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tutelage.core.errors import EnvironmentProblem, TutelageError
from tutelage.core.lines import lines_of
from tutelage.workflows.context import Context

_TIMEOUT_S = 1800.0


def run_command(ctx: Context, *arguments: str, timeout_s: float = _TIMEOUT_S) -> dict[str, Any]:
    """Run `tutelage ARGUMENTS --json` in this project and return its document.

    Raises TutelageError with the command's own sentence if it could not do it; an answer that is
    no (exit 1) or too little evidence (exit 3) is an answer. `--` comes before texts of people.
    """
    own, _, rest = _split(arguments)
    command = [
        sys.executable, "-m", "tutelage", *own, "--json", "--project", str(ctx.workspace.root),
        *rest,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=timeout_s, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        told = f"`tutelage {' '.join(own)}` took longer than {timeout_s:.0f} seconds"
        raise EnvironmentProblem(
            told, fix="Run it in a terminal, where it may take longer"
        ) from None
    return _document(done.stdout, done.stderr, " ".join(own))


def _split(arguments: tuple[str, ...]) -> tuple[list[str], str, list[str]]:
    own = list(arguments)
    if "--" in own:
        place = own.index("--")
        return own[:place], "--", own[place:]
    return own, "", []


def _document(stdout: str, stderr: str, name: str) -> dict[str, Any]:
    lines = lines_of(stdout.strip())
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        last = (stderr.strip().splitlines() or ["it printed nothing"])[-1][:300]
        raise EnvironmentProblem(
            f"`tutelage {name}` ended without an answer ({last})", fix="Run it in a terminal"
        )
    if {"error", "what"} <= set(found):
        raise TutelageError(found["what"], where=found.get("where"), fix=found.get("fix"))
    return found
