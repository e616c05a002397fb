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
from tutelage.serving.hooks import BackgroundHook
from tutelage.serving.state import GatewayState

_log = logging.getLogger(__name__)


class Follow(BackgroundHook):
    """The look at the traffic, as the project's `feedback` section wants it."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

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
