"""The hook that watches a gateway: samples gauges, counts by key, raises alerts, tells webhooks.

Its two tasks run beside the requests; every database call is in a worker thread. Where the store
can't be reached the next look tries again, and the log says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from tutelage.core.artifact import utc_now
from tutelage.core.durations import seconds
from tutelage.serving.access.spend_meters import Spend, SpendMeters
from tutelage.serving.hooks import Ask, Hook, Outcome
from tutelage.serving.monitoring.alert_store import AlertBook
from tutelage.serving.monitoring.alerts import Watch, rules_of
from tutelage.serving.monitoring.events import Happening, copy_moves, forget_old
from tutelage.serving.monitoring.logs import request_id
from tutelage.serving.monitoring.telemetry_gauges import Gauges, Meters
from tutelage.serving.monitoring.webhooks import Dispatcher, lacks
from tutelage.serving.records.store_alarm import StoreAlarm
from tutelage.serving.state import GatewayState
from tutelage.store.alerts import AlertRow

_FORGET_EVERY_S = 3600.0
_DELIVER_EVERY_S = 1.0
_CLOSE_S = 5.0
_log = logging.getLogger(__name__)


class Monitor(Hook):
    """One gateway's watch. Raises ConfigError if `alerts.off` names no built-in rule."""

    def __init__(self, state: GatewayState, home: Path) -> None:
        self.state, self.alerts = state, state.project.alerts
        registry = state.telemetry.registry
        self._meters = Meters(registry)
        self._gauges = Gauges(state, home, self._meters)
        self._spend = Spend(state, SpendMeters(registry))
        self._rules = rules_of(self.alerts)
        self._watch = Watch((), registry)
        self._book = AlertBook(state.store, state.project.name, self.alerts, self._rules)
        self._dispatcher = Dispatcher(state.store, self.alerts.webhooks, self._meters.notices)
        self._alarm = StoreAlarm(state.project.name, self.alerts.webhooks)
        self._tasks: list[asyncio.Task[None]] = []
        self._forgot = -_FORGET_EVERY_S

    async def start(self) -> None:
        """Begin to watch: by now every other part has put its metrics into the registry.

        Raises ConfigError for a rule that can't be evaluated.
        """
        self._watch = Watch(self._rules, self.state.telemetry.registry)
        self.state.events.tell(Happening("gateway.started", "the gateway has started"))
        self._watch.look(time.monotonic())
        self._tasks = [asyncio.create_task(_forever(self._look_or_alarm, self.alerts.every))]
        for hook in self.alerts.webhooks:
            if (problem := lacks(hook)) is not None:
                _log.warning("the webhook %s hears nothing: %s", hook.name, problem)
        if self.alerts.webhooks:
            pause = min(_DELIVER_EVERY_S, self.alerts.every)
            self._tasks.append(asyncio.create_task(_forever(self.deliver, pause)))

    async def admit(self, ask: Ask) -> None:
        """Name the request in every log line that it causes."""
        request_id.set(ask.record)

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        """Count the request and its cost for its key."""
        tokens = (outcome.prompt_tokens, outcome.completion_tokens)
        self.state.telemetry.by_key(ask.key, ask.deployment, outcome.status, tokens)
        self._spend.finished(ask, outcome)

    async def look(self) -> list[AlertRow]:
        """Sample, then bring the alerts in step; return those that fire."""
        await self._gauges.sample()
        await asyncio.to_thread(self._spend.sample)
        look = await asyncio.to_thread(self._watch.look, time.monotonic())
        keep = timedelta(seconds=seconds(self.alerts.keep))
        await asyncio.to_thread(copy_moves, self.state.store, keep)
        firing = await asyncio.to_thread(self._book.settle, look)
        self._meters.firing.clear()
        for row in firing:
            self._meters.firing.labels(row.rule, row.level).inc()
        if time.monotonic() - self._forgot >= _FORGET_EVERY_S:
            self._forgot = time.monotonic()
            await asyncio.to_thread(forget_old, self.state.store, utc_now() - keep)
        return firing

    async def _look_or_alarm(self) -> None:
        try:
            await self.look()
        except SQLAlchemyError as error:
            await self._alarm.failed(error)
            raise
        await self._alarm.well()

    async def deliver(self) -> int:
        """Tell the webhooks what waits; return how many notices arrived."""
        return await self._dispatcher.deliver()

    async def close(self) -> None:
        """Look a last time, tell what is due, and stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.state.events.tell(Happening("gateway.stopped", "the gateway has stopped"))
        with contextlib.suppress(TimeoutError, SQLAlchemyError, OSError):
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.to_thread(self.state.events.flush)
                await self.look()
                if self.alerts.webhooks:
                    await self.deliver()
        await self._dispatcher.close()


async def _forever(work: Callable[[], Awaitable[object]], pause_s: float) -> None:
    while True:
        try:
            await work()
        except (SQLAlchemyError, OSError) as error:
            _log.warning("the watch will try again: %s", error)
        except Exception:  # a watch that has ended would tell of nothing any more
            _log.exception("the watch failed and will try again")
        await asyncio.sleep(pause_s)
