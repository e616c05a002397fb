"""A running gateway over the fake backend, for tests that look at it from outside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.fakes.gateway import gateway_project
from tests.fakes.openai_backend import FakeBackend, Script

from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context
from tutelage.workflows.serving.serve import Serving


@dataclass
class Running:
    """A gateway, its project and its engine's script."""

    ctx: Context
    serving: Serving
    script: Script

    @property
    def url(self) -> str:
        return self.serving.base_url

    def client(self, **options: Any) -> openai.OpenAI:
        """Return OpenAI's own SDK, pointed at the gateway."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key="unused", **{"max_retries": 0, **options}
        )

    def records(self) -> list[RecordRow]:
        """Stop the gateway (flushing its log) and return the records."""
        self.serving.close()
        with self.ctx.store.session() as session:
            return list(session.query(RecordRow).order_by(RecordRow.at))

    def record(self, name: str) -> RecordRow:
        """Return the record with this id, as soon as it is written."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with self.ctx.store.session() as session:
                row = session.get(RecordRow, name)
            if row is not None:
                return row
            time.sleep(0.01)
        raise AssertionError(f"there is no record {name}")


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as running:
        yield running


@pytest.fixture
def gateway(tmp_path: Path, backend: FakeBackend) -> Iterator[Callable[..., Running]]:
    """Return a function that starts a gateway with these `deploy` settings."""
    started: list[Running] = []

    def start(prepare: Callable[[Context], Any] | None = None, **deploy: Any) -> Running:
        ctx = gateway_project(tmp_path / "project", backend.url, **deploy)
        if prepare is not None:
            prepare(ctx)
        running = Running(ctx, Serving(ctx), backend.script)
        running.serving.__enter__()
        started.append(running)
        return running

    yield start
    for running in started:
        running.serving.close()
        running.ctx.store.close()


@pytest.fixture(scope="module")
def one_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with FakeBackend() as backend:
        guards = {"schema": "off", "content": "flag"}
        root = tmp_path_factory.mktemp("gateway") / "project"
        ctx = gateway_project(root, backend.url, guards=guards, redact=True)
        with Serving(ctx) as serving:
            yield Running(ctx, serving, backend.script)
        ctx.store.close()


@pytest.fixture
def shared(one_gateway: Running) -> Running:
    """Return the module's gateway, its engine's script as it was at first."""
    script = one_gateway.script
    script.by_model.clear()
    script.seen.clear()
    script.cancelled = 0
    return one_gateway
