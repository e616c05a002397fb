"""The background tasks that keep engine, router and rollouts in step with the store.

One swaps the router's snapshot as soon as what the routes name is loaded; the other judges every
rollout from the log and writes the move it calls for under its fence. Nothing is kept in memory
that a restart would need: evidence is recomputed from the records.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from tutelage.core.errors import Conflict, TutelageError
from tutelage.core.workspace import Workspace
from tutelage.release.bundle import get_release
from tutelage.release.deployments import apply_transition
from tutelage.release.evidence import Collector, Facts, counts
from tutelage.release.power import memory_unseen
from tutelage.release.rollback import judge, unseen
from tutelage.release.rollout import Counts, Transition, advance, begin, finish
from tutelage.release.routes import (
    MEMORY_BEFORE,
    active_rollout,
    journal,
    memory_before,
    noted,
    state_of,
)
from tutelage.serving.access.key_store import load_keys
from tutelage.serving.backends.residency import Host, Residency
from tutelage.serving.golden import check_golden
from tutelage.serving.monitoring.engine_memory import EngineMemory
from tutelage.serving.monitoring.events import Happening
from tutelage.serving.router import Entry
from tutelage.serving.state import GatewayState, load_entries
from tutelage.store.releases import RolloutRow

LEASE_S = 15.0  # without a look at the store: then all traffic goes to stable
_GRACE_S = LEASE_S + 5.0  # between the last route that names a release and its removal
_SHARE = 20.0  # judging may use a twentieth of the time
_LONGEST_PAUSE_S = 10.0  # between two looks at a rollout without new records
_log = logging.getLogger(__name__)

Told = Callable[[str], None]


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
        self.state, self.host = state, host
        self.interval_s, self.tell, self.moved = interval_s, tell, moved
        # Other gateways on the same engine may answer from it until their lease and requests end.
        grace_s = _GRACE_S + state.project.deploy.timeout * bool(getattr(host, "shared", False))
        self.residency = Residency(host, state.store, workspace, state.inflight, grace_s=grace_s)
        self.memory = EngineMemory(host)
        self._missing = False  # whether a stable release can't be loaded
        self._served: dict[str, tuple[str, str | None]] = {}  # deployment -> stable, canary
        self._lock = asyncio.Lock()
        self._restarts: dict[str, int] = {}  # rollout -> engine restarts when it was first seen
        self._judged: dict[str, tuple[int, float, float]] = {}  # records, when, how long
        self._heard: dict[str, tuple[int, float]] = {}  # rollout -> canary requests, since when
        self._collectors: dict[str, Collector] = {}  # of rollouts under way

    async def run(self) -> None:
        """Keep in step until cancelled; an error is logged and the next round tries again.

        Routes are followed beside the judging, so that neither a long look at the log nor a
        locked store delays what another gateway or an operator has decided.
        """
        try:
            await asyncio.gather(self._forever(self.sync), self._forever(self.judge))
        finally:
            await self.residency.close()

    async def _forever(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self.interval_s)
            try:
                await work()
            except (TutelageError, SQLAlchemyError, OSError, TimeoutError) as error:
                _log.warning("the controller will try again: %s", error)

    async def tick(self) -> None:
        """Bring everything in step once."""
        await self.sync()
        await self.judge()

    async def judge(self) -> None:
        """Look at every rollout once; where one moved, follow it at once."""
        entries = list(self.state.router.entries.values())
        under_way = {entry.route.rollout for entry in entries}
        for rollout in [name for name in self._collectors if name not in under_way]:
            del self._collectors[rollout]
        self.memory.keep(under_way)
        for entry in entries:
            if entry.route.rollout is not None and await self._look(entry):
                await self.sync()

    async def sync(self, *, first: bool = False) -> None:
        """Read the routes, swap the snapshot where their releases are loaded, drop the unused.

        With `first`, a stable release that can't be loaded is an error; later its deployment
        keeps the route it has until it can.
        """
        async with self._lock:
            store = self.state.store
            self.state.keys.replace(await asyncio.to_thread(load_keys, store))
            known = self.residency.loaded
            fresh = await asyncio.to_thread(
                load_entries, store, self.state.project, known, self.state.around
            )
            entries: dict[str, Entry] = {}
            for name, entry in fresh.items():
                settled = await self._settle(entry, first=first)
                kept = settled or self.state.router.entries.get(name)
                if kept is not None:
                    entries[name] = kept
                    self.state.telemetry.weight.labels(name).set(kept.route.weight)
            for gone in self.state.router.entries.keys() - entries.keys():
                self.state.telemetry.weight.remove(gone)
            await self.residency.place(placement(entries.values()))
            self.state.router.replace(entries)
            self.state.router.renew(LEASE_S)
            await self.residency.drop_unused(_named([*entries.values(), *fresh.values()]))
        self._say_moved({n: (e.route.stable, e.route.canary) for n, e in fresh.items()})
        self._say_missing(fresh.values())

    def _say_moved(self, served: dict[str, tuple[str, str | None]]) -> None:
        """Call `moved` when another release answers or is tried, whoever did it."""
        if served != self._served:
            self._served = served
            self.moved()

    def _say_missing(self, named: Iterable[Entry]) -> None:
        """Tell once that a stable release can't be loaded, so that another answers, and its end."""
        faults = [(e.stable.name, e.route, self.residency.fault(e.stable.id)) for e in named]
        text = "; ".join(
            f"{name}, the stable release of {route.deployment}, can't be loaded: {fault}"
            for name, route, fault in faults
            if fault is not None
        )
        if text and not self._missing:
            self.state.events.tell(Happening("release.missing", text, "error"))
        elif self._missing and not text:
            loaded = "every stable release is loaded again"
            self.state.events.tell(Happening("release.loaded", loaded))
        self._missing = bool(text)

    async def _settle(self, entry: Entry, *, first: bool) -> Entry | None:
        """Return the entry with the releases that are loaded; None if stable is not yet."""
        if first:
            await self._load_stable(entry)
        elif not self.residency.want(entry.stable):
            return None
        if entry.previous is not None:
            self.residency.want(entry.previous)
        if entry.canary is None or entry.route.rollout is None:
            return entry
        if entry.route.state == "pending":
            await self.memory.before(entry.route.rollout)
        if first and entry.route.state != "pending":  # its users must not flip at a restart
            with contextlib.suppress(TutelageError):
                await self.residency.load(entry.canary)
        return entry if self.residency.want(entry.canary) else replace(entry, canary=None)

    async def _load_stable(self, entry: Entry) -> None:
        try:
            await self.residency.load(entry.stable)
        except TutelageError as error:
            what = f"{entry.stable.name}, the stable release of {entry.route.deployment}, "
            fix = error.fix or "Look at what it needs"
            if entry.route.previous is not None:
                fix += ". Or go back to the release before with `tutelage release rollback`"
            told = f"{what}can't be loaded: {error.what}"
            raise type(error)(told, where=error.where, fix=fix) from error

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
        fault = self._load_fault(row)
        evidence: dict[str, Any] = {}
        if fault is None and entry.canary is not None:
            release = await asyncio.to_thread(get_release, self.state.store, row.candidate)
            golden = await check_golden(self.state.upstream, entry.canary, release)
            fault, evidence = golden.fault, {"golden": golden.evidence}
        if fault is not None:
            move = finish(state_of(row), "rolled_back", fault)
        else:
            move = begin(state_of(row)) if entry.canary is not None else None
        evidence[MEMORY_BEFORE] = self.memory.was(row.id)
        return replace(move, evidence=evidence) if move else None

    def _load_fault(self, row: RolloutRow) -> str | None:
        problem = self.residency.fault(row.candidate)
        return f"the candidate can't be loaded: {problem}" if problem else None

    async def _weigh(self, row: RolloutRow) -> Transition | None:
        """Return the move that the log calls for, or None."""
        fault = self._load_fault(row) or self._crash(row)
        if not self.memory.knows(row.id):  # the gateway was started meanwhile, or another began it
            moves = await asyncio.to_thread(journal, self.state.store, row.id)
            self.memory.recall(row.id, memory_before(moves))
        await self.memory.look(row.id)
        if fault is None and not self._due(row.id):
            return None
        started = time.monotonic()
        written = self.state.log.records_written
        facts = self.memory.facts(row.id, fault)
        move = await asyncio.to_thread(self._decide, row, facts)
        now = time.monotonic()
        self._judged[row.id] = (written, now, now - started)
        return move

    def _decide(self, row: RolloutRow, facts: Facts) -> Transition | None:
        store, limits = self.state.store, self.state.project.deploy.limits
        collector = self._collectors.setdefault(row.id, Collector(store, row))
        found = collector.read(facts)
        verdict = judge(found.baseline, found.canary, limits, found.scores)
        state = replace(state_of(row), noted=noted(store, row))
        move = advance(state, verdict, self._patient(row, counts(found, row)))
        if move is None or verdict.verdict != "pass":
            return move
        hidden = unseen(found.baseline, found.canary, limits, found.scores)
        hidden += memory_unseen(self.memory.was(row.id))
        return replace(move, evidence={**move.evidence, "unseen": hidden})

    def _patient(self, row: RolloutRow, told: Counts) -> Counts:
        """Return the counts with no more silence than this process has lived through.

        The log knows the wall clock only, and that may jump.
        """
        seen, since = self._heard.get(row.id, (-1, 0.0))
        if seen != told.total:
            since = time.monotonic()
            self._heard[row.id] = (told.total, since)
        return replace(told, quiet_s=min(told.quiet_s, time.monotonic() - since))

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


def placement(entries: Iterable[Entry]) -> dict[str, tuple[int, ...]]:
    """Return which replicas serve which release, for deployments whose rollout is rolling.

    In step i the replicas 0..i have the candidate and the others stable; the last replica keeps
    stable to the end, so that there is always somewhere to return to. A release that is not
    named is served by all.
    """
    found: dict[str, tuple[int, ...]] = {}
    for entry in entries:
        route = entry.route
        if route.replicas < 2 or route.canary is None or not entry.live or route.weight <= 0:
            continue
        moved = round(route.weight / 100 * route.replicas)
        found[route.stable] = tuple(range(min(moved, route.replicas - 1), route.replicas))
        found[route.canary] = tuple(range(moved))
    return found


def _named(entries: list[Entry]) -> set[str]:
    parts = [p for e in entries for p in (e.stable, e.canary, e.previous) if p is not None]
    return {profile.id for profile in parts}
