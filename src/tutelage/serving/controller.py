"""The background task that keeps engine, router and rollouts in step with the store.

Each tick: load what the routes name into the engine, swap the router's snapshot, judge every
active rollout from the log and write the move it calls for under its fence. Nothing is kept in
memory that a restart would need: evidence is recomputed from the records.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import psutil
from sqlalchemy.exc import SQLAlchemyError

from tutelage.core.errors import Conflict, TutelageError
from tutelage.core.workspace import Workspace
from tutelage.release.bundle import get_release, verify_release
from tutelage.release.deployments import active_rollout, apply_transition, state_of
from tutelage.release.evidence import count, read_arms
from tutelage.release.rollback import judge
from tutelage.release.rollout import Transition, advance, begin, finish
from tutelage.serving.golden import check_golden
from tutelage.serving.keys import load_keys
from tutelage.serving.router import Entry, Profile
from tutelage.serving.state import GatewayState, load_entries
from tutelage.store.releases import RolloutRow

_MEMORY_EVERY_S = 5.0
_SHARE = 20.0  # judging may use a twentieth of the time
_LONGEST_PAUSE_S = 10.0  # between two looks at a rollout without new records
_log = logging.getLogger(__name__)

Told = Callable[[str], None]


class Host(Protocol):
    """What holds releases: a launcher."""

    async def ensure(self, release_id: str, adapter: Path | None) -> None: ...

    async def remove(self, release_id: str) -> None: ...


class Controller:
    """Runs rollouts for one gateway. Several gateways may: the fence lets one of them write.

    `moved()` is called when the releases that serve are not those of the look before.
    """

    def __init__(
        self,
        state: GatewayState,
        host: Host,
        workspace: Workspace,
        *,
        interval_s: float = 0.5,
        tell: Told = lambda text: None,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self.state, self.host, self.workspace = state, host, workspace
        self.interval_s, self.tell, self.moved = interval_s, tell, moved
        self._served: dict[str, tuple[str, str | None]] = {}  # deployment -> stable, canary
        self.loaded: dict[str, Profile] = {}
        self._lock = asyncio.Lock()
        self._faults: dict[str, str] = {}  # rollout -> what needs no statistics
        self._restarts: dict[str, int] = {}  # rollout -> engine restarts when it was first seen
        self._memory: list[float] = []
        self._memory_at = 0.0
        self._judged: dict[str, tuple[int, float, float]] = {}  # records, when, how long

    async def run(self) -> None:
        """Tick until cancelled; an error is logged and the next tick tries again."""
        while True:
            await asyncio.sleep(self.interval_s)
            try:
                await self.tick()
            except (TutelageError, SQLAlchemyError, OSError, TimeoutError) as error:
                _log.warning("the controller will try again: %s", error)

    async def tick(self) -> None:
        """Bring everything in step once."""
        await self.sync()
        for entry in list(self.state.router.entries.values()):
            if entry.route.rollout is not None and await self._look(entry):
                await self.sync()

    async def sync(self, *, first: bool = False) -> None:
        """Load the releases that routes name, swap the snapshot, drop what nobody needs.

        With `first`, a stable release that can't be loaded is an error; later its deployment
        keeps the route it has.
        """
        async with self._lock:
            store = self.state.store
            self.state.keys.replace(await asyncio.to_thread(load_keys, store))
            fresh = await asyncio.to_thread(load_entries, store, self.state.project, self.loaded)
            entries: dict[str, Entry] = {}
            for name, entry in fresh.items():
                settled = await self._settle(entry, first=first)
                kept = settled or self.state.router.entries.get(name)
                if kept is not None:
                    entries[name] = kept
                    self.state.telemetry.weight.labels(name).set(kept.route.weight)
            self.state.router.replace(entries)
            await self._drop_unused(entries)
        self._say_moved({n: (e.route.stable, e.route.canary) for n, e in fresh.items()})

    def _say_moved(self, served: dict[str, tuple[str, str | None]]) -> None:
        """Call `moved` when another release answers or is tried, whoever did it."""
        if served != self._served:
            self._served = served
            self.moved()

    async def _settle(self, entry: Entry, *, first: bool) -> Entry | None:
        """Return the entry with its releases in the engine; None if stable can't be loaded."""
        try:
            await self._ensure(entry.stable)
        except TutelageError as error:
            if first:
                raise
            _log.error("%s keeps its route: %s", entry.route.deployment, error)
            return None
        if entry.canary is None or entry.route.rollout is None:
            return entry
        try:
            await self._ensure(entry.canary)
        except TutelageError as error:
            self._faults[entry.route.rollout] = f"the candidate can't be loaded: {error}"
            return replace(entry, canary=None)
        return entry

    async def _ensure(self, profile: Profile) -> None:
        if profile.id in self.loaded:
            return
        row = await asyncio.to_thread(get_release, self.state.store, profile.id)
        await asyncio.to_thread(verify_release, self.workspace, row)
        adapter = self.workspace.home / profile.adapter if profile.adapter else None
        await self.host.ensure(profile.id, adapter)
        self.loaded[profile.id] = profile

    async def _drop_unused(self, entries: dict[str, Entry]) -> None:
        named = {p.id for e in entries.values() for p in (e.stable, e.canary) if p is not None}
        for release in [r for r in self.loaded if r not in named]:
            if self.state.inflight[release] == 0:
                del self.loaded[release]
                del self.state.inflight[release]
                await self.host.remove(release)

    async def _look(self, entry: Entry) -> bool:
        """Judge one rollout; return whether it moved."""
        row = await asyncio.to_thread(active_rollout, self.state.store, entry.route.deployment)
        if row is None:
            return True
        if row.id != entry.route.rollout or row.fence != entry.route.fence:
            return True  # somebody moved it: read the routes again
        move = await (self._prepare(row, entry) if row.state == "pending" else self._weigh(row))
        if move is None:
            return False
        try:
            await asyncio.to_thread(apply_transition, self.state.store, row.id, row.fence, move)
        except Conflict as error:
            _log.info("another writer was first: %s", error)
            return True
        self.state.telemetry.transitions.labels(row.deployment, move.to).inc()
        text = f"{row.deployment}: {move.to} at {move.weight:g} %: {move.reason}"
        _log.info("rollout %s: %s", row.id, text)
        self.tell(text)
        return True

    async def _prepare(self, row: RolloutRow, entry: Entry) -> Transition | None:
        """Return the move out of pending: running if the candidate holds, else rolled back."""
        fault = self._faults.get(row.id)
        evidence: dict[str, Any] = {}
        if fault is None and entry.canary is not None:
            release = await asyncio.to_thread(get_release, self.state.store, row.candidate)
            golden = await check_golden(self.state.upstream, entry.canary, release)
            fault, evidence = golden.fault, {"golden": golden.evidence}
        if fault is not None:
            move = finish(state_of(row), "rolled_back", fault)
        else:
            move = begin(state_of(row)) if entry.canary is not None else None
        return replace(move, evidence=evidence) if move and evidence else move

    async def _weigh(self, row: RolloutRow) -> Transition | None:
        """Return the move that the log calls for, or None."""
        fault = self._faults.get(row.id) or self._crash(row)
        memory = await self._memory_use()
        if fault is None and not self._due(row.id):
            return None
        started = time.monotonic()
        written = self.state.log.records_written

        def work() -> Transition | None:
            stable, canary = read_arms(self.state.store, row, memory=memory, fault=fault)
            verdict = judge(stable, canary, self.state.project.deploy.limits)
            return advance(state_of(row), verdict, count(self.state.store, row))

        move = await asyncio.to_thread(work)
        now = time.monotonic()
        self._judged[row.id] = (written, now, now - started)
        return move

    def _due(self, rollout: str) -> bool:
        """Return whether to look again: new records, and judging stays cheap."""
        written, when, cost = self._judged.get(rollout, (-1, 0.0, 0.0))
        waited = time.monotonic() - when
        if waited >= _LONGEST_PAUSE_S:
            return True
        return written != self.state.log.records_written and waited >= cost * _SHARE

    def _crash(self, row: RolloutRow) -> str | None:
        restarts = int(getattr(self.host, "restarts", 0))
        before = self._restarts.setdefault(row.id, restarts)
        return "the engine crashed during the rollout" if restarts > before else None

    async def _memory_use(self) -> tuple[float, ...]:
        """Return the engine's last memory samples as ratios of the machine's memory."""
        stats = getattr(self.host, "stats", None)
        if stats is None or time.monotonic() - self._memory_at < _MEMORY_EVERY_S:
            return tuple(self._memory)
        self._memory_at = time.monotonic()
        try:
            used_mb = float((await asyncio.wait_for(stats(), 2.0)).get("pss_mb") or 0.0)
        except (TutelageError, TimeoutError, OSError, ValueError) as error:
            _log.warning("the engine's memory is not known: %s", error)
            return tuple(self._memory)
        self._memory = [*self._memory, used_mb * 2**20 / psutil.virtual_memory().total][-2:]
        return tuple(self._memory)
