"""Killed at any request of a hosted run and run again: each file goes up once, one job is made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.hosted_project import config, usual
from tests.fakes.jobs_server import KEY, TOKEN, Fault, JobsServer

from tutelage.workflows.context import open_context

SCRIPT = Path(__file__).with_name("killed_hosted.py")


class Jobs:
    """Starts hosted runs in processes of their own."""

    def __init__(self) -> None:
        env = {**os.environ, "JOBS_KEY": KEY, "AZURE_TOKEN": TOKEN}
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=env,
        )  # fmt: skip

    def run(self, project: Path, dataset: str) -> int:
        """Run to the end and return the exit status; -9: killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{project} {dataset}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def jobs() -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server() -> Iterator[JobsServer]:
    with JobsServer() as running:
        yield running


class Seams:
    """One project, run again and again from its beginning."""

    def __init__(self, root: Path, server: JobsServer, jobs: Jobs, **behaviour: Any) -> None:
        self.root, self.server, self.jobs = root, server, jobs
        self.behaviour = {"steps": 1, **behaviour}
        self._fresh()
        fresh = root / "fresh"
        fresh.mkdir()
        (fresh / "tutelage.yaml").write_text(config(server))
        ctx = open_context(fresh)
        self.dataset = usual(ctx).hash
        ctx.store.close()
        self.requests: list[str] = []

    def _fresh(self) -> None:
        self.server.fresh(**self.behaviour)

    def whole(self) -> str:
        """Run unbroken; return the artifact's hash and keep the requests."""
        project = self._project()
        assert self.jobs.run(project, self.dataset) == 0
        self.requests = list(self.server.service.seen)
        return (project / "made").read_text()

    def _project(self) -> Path:
        self._fresh()
        project = self.root / "project"
        shutil.rmtree(project, ignore_errors=True)
        shutil.copytree(self.root / "fresh", project)
        return project

    def killed_at(self, number: int, phase: str) -> str:
        """Run with a kill at a request, then again; return the artifact's hash."""
        project = self._project()
        self.kill(project, lambda seen, at, line: (seen, at) == (number, phase))
        assert self.jobs.run(project, self.dataset) == -signal.SIGKILL
        assert self.jobs.run(project, self.dataset) == 0
        return (project / "made").read_text()

    def killed_at_every_request(self) -> tuple[str, int]:
        """Run as often as it takes, killed before each request not seen before; (hash, kills)."""
        project = self._project()
        reached: set[str] = set()

        def new(seen: int, at: str, line: str) -> bool:
            place = f"{line} {len(self.server.service.files)}"
            fresh = at == "before" and place not in reached
            reached.add(place)
            return fresh

        self.kill(project, new)
        kills = 0
        while self.jobs.run(project, self.dataset) == -signal.SIGKILL:
            kills += 1
        return (project / "made").read_text(), kills

    def kill(self, project: Path, when: Callable[[int, str, str], bool]) -> None:
        """Kill the process at work in `project` at the requests that `when` picks."""

        def hook(seen: int, at: str, line: str) -> None:
            if when(seen, at, line):
                os.kill(int((project / "pid").read_text()), signal.SIGKILL)

        self.server.service.hook = hook


def once_each(server: JobsServer) -> bool:
    """Return whether each file was uploaded once and one job was made."""
    sent = server.service.uploads()
    return len(sent) == len(set(sent)) == 2 and len(server.service.bodies) == 1


@pytest.mark.parametrize(
    ("behaviour", "places"),
    [
        ({}, ["/v1/files", "/v1/fine_tuning/jobs"]),
        ({"azure": True}, ["/openai/fine_tuning/jobs", "/subscriptions"]),
        ({"without_metadata": True}, ["/v1/fine_tuning/jobs"]),
    ],
    ids=["openai", "azure", "no metadata"],
)
def test_what_was_done_and_not_answered_is_found_again(
    tmp_path: Path, server: JobsServer, jobs: Jobs, behaviour: Any, places: list[str]
) -> None:
    seams = Seams(tmp_path, server, jobs, **behaviour)
    whole = seams.whole()
    assert once_each(server)
    changes = [
        number
        for number, line in enumerate(seams.requests, 1)
        if not line.startswith("GET") and any(place in line for place in places)
    ]
    assert len(changes) == (
        1 if "without_metadata" in behaviour else len(places) + (behaviour == {})
    )
    for number in changes:
        assert seams.killed_at(number, "after") == whole
        assert once_each(server), seams.requests[number - 1]


def test_what_was_not_done_is_done_once(tmp_path: Path, server: JobsServer, jobs: Jobs) -> None:
    seams = Seams(tmp_path, server, jobs)
    whole = seams.whole()
    made, kills = seams.killed_at_every_request()
    assert made == whole
    assert kills >= len(set(seams.requests))
    assert once_each(server)


def test_a_kill_after_a_lost_answer(tmp_path: Path, server: JobsServer, jobs: Jobs) -> None:
    seams = Seams(tmp_path, server, jobs)
    project = seams._project()
    server.service.faults.append(Fault("POST /v1/fine_tuning/jobs", status=502, after=True))
    looking = "GET /v1/fine_tuning/jobs"
    seams.kill(project, lambda *at: at[1:] == ("before", looking) and bool(server.service.jobs))
    assert jobs.run(project, seams.dataset) == -signal.SIGKILL
    server.service.hook = lambda *at: None
    assert jobs.run(project, seams.dataset) == 0
    assert once_each(server)
