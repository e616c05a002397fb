"""What is sampled for /metrics rather than counted: engine, disk, queue, rollouts, alerts.

It also notices when the engine stops answering or was started again, and tells the event log.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from tutelage.core.errors import TutelageError
from tutelage.serving.monitoring.engine_memory import ratios
from tutelage.serving.monitoring.events import EventLog, Happening
from tutelage.serving.state import GatewayState

_TIMEOUT_S = 5.0
VERSION = version("tutelage")
UNKNOWN = float("nan")  # until the first sample
_log = logging.getLogger(__name__)


class Meters:
    """The sampled metrics of one registry; nothing here samples."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        self._registry = registry
        self._gauge("tutelage_build_info", "Always 1.", "version").labels(VERSION).set(1)
        self.up = self._gauge("tutelage_engine_up", "1 while the engine answers.")
        self.up.set(UNKNOWN)
        self.memory = self._gauge("tutelage_engine_memory_bytes", "The engine's share of memory.")
        self.ratio = self._gauge("tutelage_engine_memory_ratio", "How full memory is.", "kind")
        self.restarts = Counter(
            "tutelage_engine_restarts", "Starts after a crash.", registry=registry
        )
        self.releases = self._gauge("tutelage_releases_served", "Releases that routes name.")
        self.free = self._gauge("tutelage_disk_free_bytes", "Free for .tutelage.")
        self.free_ratio = self._gauge("tutelage_disk_free_ratio", "Free share of that disk.")
        self.free_ratio.set(UNKNOWN)
        self.step = self._gauge(
            "tutelage_rollout_step", "Step of the rollout, from 1; 0 without one.", "deployment"
        )
        self.slots = self._gauge("tutelage_slots", "Requests that may run at once.")
        self.queue = self._gauge("tutelage_queue_size", "Requests that may wait.")
        self.events_lost = self._gauge("tutelage_events_lost", "Events that could not be kept.")
        self.firing = self._gauge("tutelage_alerts_firing", "Alerts that fire.", "rule", "level")
        self.notices = Counter(
            "tutelage_notices", "Tries to tell a webhook.", ["webhook", "outcome"],
            registry=registry,
        )  # fmt: skip

    def _gauge(self, name: str, help_: str, *labels: str) -> Gauge:
        return Gauge(name, help_, labels, registry=self._registry)


class Gauges:
    """Samples one gateway. `sample` is called now and then, on the gateway's loop."""

    def __init__(self, state: GatewayState, home: Path, meters: Meters) -> None:
        self._state, self._home, self._meters = state, home, meters
        meters.slots.set(state.project.deploy.concurrency)
        meters.queue.set(state.project.deploy.queue)
        self._engine = EngineWatch(state.events)
        self._deployments: set[str] = set()  # that have a step

    async def sample(self) -> None:
        """Take all samples; what can't be had is left as it was."""
        self._routes()
        self._meters.events_lost.set(self._state.events.lost)
        await self._disk()
        await self._sample_engine()

    def _routes(self) -> None:
        entries = self._state.router.entries
        served = {p.id for e in entries.values() for p in (e.stable, e.canary) if p is not None}
        self._meters.releases.set(len(served))
        for gone in self._deployments - entries.keys():
            self._meters.step.remove(gone)
        self._deployments = set(entries)
        for name, entry in entries.items():
            step = entry.route.step
            self._meters.step.labels(name).set(0 if step is None else step + 1)

    async def _disk(self) -> None:
        try:
            usage = await asyncio.to_thread(shutil.disk_usage, self._home)
        except OSError as error:
            _log.warning("the free space is not known: %s", error)
            return
        self._meters.free.set(usage.free)
        self._meters.free_ratio.set(usage.free / usage.total if usage.total else 0.0)

    async def _sample_engine(self) -> None:
        host = self._state.host
        if host is None:
            return
        up = await _ask(host, "health")
        restarts = int(getattr(host, "restarts", 0))
        if up is not None:
            self._meters.up.set(1 if up else 0)
        rise = self._engine.look(up, restarts)
        if rise:
            self._meters.restarts.inc(rise)
        # Servers tell what grew since the same asker's last look; rollouts look beside this.
        asker = ("watch",) if hasattr(host, "servers") else ()
        stats = await _ask(host, "stats", *asker) if up else None
        if isinstance(stats, Mapping):
            self._take(stats)

    def _take(self, stats: Mapping[str, Any]) -> None:
        if stats.get("pss_mb"):
            self._meters.memory.set(float(stats["pss_mb"]) * 2**20)
        self._meters.ratio.clear()  # a cache that has room again is not told
        for kind, ratio in ratios(stats).items():
            self._meters.ratio.labels(kind).set(ratio)


class EngineWatch:
    """Tells when the engine stops answering and when it answers again."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._was_up: bool | None = None
        self._restarts: int | None = None

    def look(self, up: bool | None, restarts: int) -> int:
        """Take a sample (None: not known); return how many starts there were since the last."""
        rise = restarts - (restarts if self._restarts is None else self._restarts)
        self._restarts = restarts
        fell = self._was_up is True and up is False
        if (rise > 0 and self._was_up is not False) or fell:
            self._tell("engine.crashed", "the engine stopped answering", "error", restarts)
        if up and (rise > 0 or self._was_up is False):
            self._tell("engine.restarted", "the engine answers again", "warning", restarts)
        if up is not None:
            self._was_up = up
        return max(0, rise)

    def _tell(self, kind: str, message: str, level: Any, restarts: int) -> None:
        self._events.tell(Happening(kind, message, level, data={"restarts": restarts}))


async def _ask(host: Any, name: str, *more: str) -> Any:
    """Return what a launcher's coroutine method gives, or None if it has none or it fails."""
    method = getattr(host, name, None)
    if method is None:
        return None
    try:
        return await asyncio.wait_for(method(*more), _TIMEOUT_S)
    except (TutelageError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        _log.debug("the engine's %s is not known: %s", name, error)
        return False if name == "health" else None
