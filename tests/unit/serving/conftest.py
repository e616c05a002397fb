"""A running gateway over the fake backend, for tests that look at it from outside."""

from __future__ import annotations

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
from tutelage.workflows.serve import Serving


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
