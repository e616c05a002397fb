"""A rollout controller without a gateway: on a store, with a host that holds what it is told to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tutelage.serving.access.keys import KeyRing
from tutelage.serving.backends.slots import Slots
from tutelage.serving.controller import Controller
from tutelage.serving.monitoring.telemetry import Telemetry
from tutelage.serving.records.request_log import RequestLog
from tutelage.serving.router import Router
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.upstream import Upstream
from tutelage.workflows.context import Context

NOWHERE = "http://127.0.0.1:9"


@dataclass
class FakeHost:
    """A host that holds what it is told to, or says why not."""

    held: list[str] = field(default_factory=list)
    error: Exception | None = None
    placed: list[dict[str, tuple[int, ...]]] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)  # of its one server
    restarts: int = 0

    async def ensure(self, release_id: str, adapter: Path | None) -> None:
        """Hold a release."""
        if self.error is not None:
            raise self.error
        self.held.append(release_id)

    async def remove(self, release_id: str) -> None:
        """Let go of it."""
        self.held.remove(release_id)

    async def place(self, placed: dict[str, tuple[int, ...]]) -> None:
        """Remember where releases were to be served from."""
        self.placed.append(placed)

    async def stats(self) -> dict[str, object]:
        """Return how full the memory is."""
        return {"memory": self.memory, "backends": [{"figures": self.figures}]}


def bare_controller(ctx: Context, host: FakeHost) -> tuple[Controller, GatewayState]:
    """Return a controller of the project's deployments, and what it keeps in step."""
    telemetry, deploy = Telemetry(), ctx.config.deploy
    state = GatewayState(
        project=ctx.config,
        store=ctx.store,
        router=Router(),
        log=RequestLog(ctx.store, telemetry),
        upstream=Upstream(lambda: NOWHERE),
        telemetry=telemetry,
        keys=KeyRing(required=False),
        slots=Slots(deploy.concurrency, deploy.queue, telemetry),
        split_key=b"key",
    )
    return Controller(state, host, ctx.workspace), state
