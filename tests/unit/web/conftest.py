"""A real page process, a real headless Chromium, and what a browser complained about."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.web_process import CHROMIUM, visit
from tests.fakes.web_projects import labelling_project

from tutelage.workflows.context import Context, open_context

PATIENCE_MS = 60_000  # how long a browser waits for what it is told to expect


class Site:
    """One page process of a project. `options` are the command's, such as ("--host", "::1").

    `program` is the module that is run in place of tutelage.
    """

    def __init__(
        self, directory: Path, options: tuple[str, ...] = (), *, program: str = "tutelage"
    ) -> None:
        self.directory, self._options, self._program = directory, options, program
        self.url = ""
        self.notes: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, on the same port as before, and return when it answers."""
        port = self.url.rpartition(":")[2] or "0"
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._program, "web", "--json", "-p", str(self.directory),
             "--port", port, "--parent", str(os.getpid()), *self._options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if '"url"' not in said:
            _, error = self._process.communicate(timeout=60)
            raise AssertionError(f"the page did not start: {said}{error}")
        told = json.loads(said)
        self.url, self.notes = told["url"], told["notes"]

    def stop(self, *, kill: bool = False) -> None:
        """End it; `kill` gives it no chance to finish anything."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        self._process.communicate(timeout=60)
        self._process = None

    def restart(self, *, kill: bool = False) -> None:
        """End it and start it again at the same address."""
        self.stop(kill=kill)
        self.start()

    @property
    def context(self) -> Context:
        """The project, opened anew: what the page has written can be read there."""
        return open_context(self.directory)

    @property
    def log(self) -> str:
        """What the process has written down: bugs with their tracebacks."""
        path = self.directory / ".tutelage" / "logs" / "web.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""


@pytest.fixture(scope="module")
def project_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of a module's tests: 24 items to label. A module may put its own in place."""
    root = tmp_path_factory.mktemp("project")
    labelling_project(root)
    return root


@pytest.fixture(scope="module")
def site_options() -> tuple[str, ...]:
    """Options of `tutelage web`; a module may put its own in place."""
    return ()


@pytest.fixture(scope="module")
def site(project_dir: Path, site_options: tuple[str, ...]) -> Iterator[Site]:
    """The page process of `project_dir`, one for a module's tests."""
    made = Site(project_dir, site_options)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One headless Chromium for a module's tests."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def allowed() -> list[str]:
    """Parts of complaints of the browser that a test expects: `allowed.append("404")`."""
    return []


@pytest.fixture
def page(browser: Any, site: Site, allowed: list[str]) -> Iterator[Any]:
    """A tab of a fresh profile; the test fails if the browser complains meanwhile."""
    context = browser.new_context(base_url=site.url, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    tab = context.new_page()
    watch(tab, complaints)
    yield tab
    context.close()
    left = [text for text in complaints if not any(part in text for part in allowed)]
    assert left == [], site.log[-2000:]


def watch(tab: Any, complaints: list[str]) -> None:
    """Collect what a tab's console and scripts complain of."""
    tab.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))


def ready(tab: Any, path: str) -> Any:
    """Open a page and return when its events reach the server."""
    answer = visit(tab, path)
    tab.wait_for_function("window.did_handshake === true")
    return answer
