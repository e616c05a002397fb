"""Which hosted models are kept alive: those of hosted jobs, and those that serve here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tutelage.core.errors import DataError
from tutelage.serving.backends.keep_alive import Kept, KeptEndpoint, Pulse
from tutelage.workflows.context import Context
from tutelage.workflows.training.hosted_jobs import HostedDesk

Answered = Callable[[int], datetime | None]  # by the place of a server under deploy


class KeptJob:
    """The tuned model of a hosted job."""

    def __init__(self, ctx: Context, name: str) -> None:
        self._desk, self.name = HostedDesk(ctx), name

    def pulse(self) -> Pulse:
        """Return what is known of its calls."""
        found = next((p for p in self._desk.pings() if p["name"] == self.name), None)
        if found is None:
            raise DataError("the hosted job is not there any more", where=self.name)
        last = found["last_success"]
        return Pulse(
            self.name,
            found["base_url"],
            found["model"],
            found["every"],
            datetime.fromisoformat(last) if last else None,
            found["last_problem"],
        )

    async def call(self, now: datetime) -> None:
        """Ask the model for one token."""
        await asyncio.to_thread(self._desk.keepalive, self.name, now=now)


def kept_models(ctx: Context, answered: Answered = lambda place: None) -> list[Kept]:
    """Return every model that has an interval: of hosted jobs, and of `deploy`'s servers."""
    kept: list[Kept] = [KeptJob(ctx, ping["name"]) for ping in HostedDesk(ctx).pings()]
    deploy = ctx.config.deploy
    if deploy.engine == "embedded" or deploy.keep_alive is None:
        return kept
    for place, backend in enumerate(deploy.backends):
        name = re.sub(r"[^A-Za-z0-9._-]", "_", backend.name or f"{place}-{backend.model}")[:100]
        file = ctx.workspace.home / "keep_alive" / f"{name}.json"

        def when(place: int = place) -> datetime | None:
            return answered(place)

        kept.append(KeptEndpoint(backend, file, deploy.keep_alive, when))
    return kept


def pulses(ctx: Context) -> list[dict[str, Any]]:
    """Return what is known of the calls of each model that is kept alive."""
    return [model.pulse().as_dict() for model in kept_models(ctx)]
