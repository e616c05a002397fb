"""Reads signals from the traffic beside the running gateway, every few minutes.

It runs in a thread of its own and touches no request; several gateways over one store do the same
work twice and find the same.
"""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy.exc import SQLAlchemyError

from tutelage.core.durations import seconds
from tutelage.feedback.traffic_signals import read_traffic
from tutelage.serving.hooks import Hook
from tutelage.serving.state import GatewayState

_log = logging.getLogger(__name__)


class Follow(Hook):
    """The look at the traffic, as the project's `feedback` section wants it."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End; a look under way is done again at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        settings = self._state.project.feedback
        while True:
            await asyncio.sleep(seconds(settings.every))
            try:
                look = await asyncio.to_thread(read_traffic, self._state.store, settings)
            except SQLAlchemyError as error:
                _log.warning("signals could not be read from the traffic: %s", error)
                continue
            if look.written:
                _log.info("%d signals were read from the traffic", look.written)
