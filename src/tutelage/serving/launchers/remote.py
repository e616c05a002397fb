"""Servers that speak OpenAI's API as the engine: they are found, not started, and never stopped.

One or several (`deploy.endpoints`). A server that lists a release by its id or name answers for
it; one with vLLM's adapter routes is given what it lacks. Each is looked at every
`deploy.health_every` seconds: one that is down gets no requests, and one that comes back gets its
adapters before it gets requests. Nothing is unloaded at the end: other gateways may use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.core.config import Project
from tutelage.core.config_deploy import Backend
from tutelage.core.errors import ConfigError, EnvironmentProblem, ModelError, TutelageError
from tutelage.core.workspace import Workspace
from tutelage.serving.launchers.base import Check, Engine, unchecked
from tutelage.serving.launchers.remote_metrics import Figures
from tutelage.serving.launchers.remote_server import Known, RemoteServer

_FAILURES = 2  # looks in a row that a server may fail
_REFUSED_S = 60.0  # until a server is asked again for a release that it refused
_STALE_S = 60.0  # an adapter of ours that nobody wanted for so long is unloaded
_log = logging.getLogger(__name__)

Lookup = Callable[[str], Known | None]
Told = Callable[[RemoteServer, bool, str], None]  # which, whether it is up, a sentence


class RemoteLauncher:
    """The servers of a project. Use from one event loop."""

    shared = True  # other gateways may use the same servers

    def __init__(
        self,
        backends: Sequence[Backend],
        lookup: Lookup = lambda release: None,
        *,
        home: Path | None = None,
        health_every_s: float = 2.0,
        apart: bool = False,
    ) -> None:
        self.servers = tuple(RemoteServer(b, place, home) for place, b in enumerate(backends))
        self.on_change: Told = lambda server, up, text: None
        self.check: Check = unchecked  # asked before a release is loaded again
        self._lookup, self._every_s, self._apart = lookup, health_every_s, apart
        self._wanted: dict[str, Known] = {}
        self._placement: Mapping[str, Sequence[int]] = {}
        self._groups: dict[str, tuple[int, ...]] = {}  # apart: the servers of a release
        self._unwanted: dict[tuple[int, str], float] = {}  # since when
        self._failed: dict[int, int] = {}  # looks in a row
        # server and release -> when to try again, and why not now
        self._refused: dict[tuple[int, str], tuple[float, str]] = {}
        self._told: dict[int, bool] = {}  # whether it was up when that was told last
        self._sampled: dict[tuple[str, int], Figures] = {}  # by who asked, and server
        self._watchers: list[asyncio.Task[None]] = []

    @classmethod
    def from_project(cls, project: Project, workspace: Workspace) -> RemoteLauncher:
        """Return the launcher of a project. Raises ConfigError if it names no server."""
        deploy = project.deploy
        if not deploy.backends:
            raise ConfigError(
                "'deploy.engine' is remote and neither 'deploy.endpoint' nor 'deploy.endpoints' "
                "names a server",
                where=str(workspace.config_path),
                fix="Add deploy: {endpoint: {base_url: http://host:8000/v1, model: NAME}}",
            )
        return cls(
            deploy.backends,
            _lookup_in(workspace),
            home=workspace.home,
            health_every_s=deploy.health_every,
            apart=deploy.apart,
        )

    async def start(self) -> Engine:
        """Return where a server is; raise what the first one said if none of them answers."""
        looks = await asyncio.gather(*(self._first_look(server) for server in self.servers))
        if all(looks) and looks[0] is not None:
            await self.stop()
            raise looks[0]
        self._watchers = [asyncio.create_task(self._watch(server)) for server in self.servers]
        first = next(server for server in self.servers if server.up)
        return Engine(first.base_url, 0)

    async def stop(self) -> None:
        """Leave the servers as they are."""
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers = []
        for server in self.servers:
            await server.close()

    async def ensure(self, release_id: str, adapter: Path | None) -> None:
        """Return when a server answers for `release_id`; raise ModelError if none can.

        Servers that are down, or fail, get it when they come back.
        """
        found = await asyncio.to_thread(self._lookup, release_id)
        release = Known(
            release_id,
            found.name if found else "",
            found.kind if found else ("base" if adapter is None else "tuned"),
            adapter,
        )
        if self._apart:
            self._groups[release_id] = self._group(release)
        self._wanted[release_id] = release
        targets = self._targets(release)
        results = await asyncio.gather(*(self._hold(server, release) for server in targets))
        if not any(release_id in server.holds for server in self.servers):
            self._forget(release_id)
            raise next((error for error in results if error is not None), _nowhere(release))

    async def remove(self, release_id: str) -> None:
        """Unload a release everywhere; a server that is down loses it when it comes back."""
        self._forget(release_id)
        for server in self.servers:
            with contextlib.suppress(EnvironmentProblem):
                await server.drop(release_id)

    async def place(self, placement: Mapping[str, Sequence[int]]) -> None:
        """Send each release's requests to the named servers alone; others are served by all."""
        self._placement = {release: tuple(places) for release, places in placement.items()}

    def holders(self, release_id: str) -> list[RemoteServer]:
        """Return the servers to choose from for a request, the best that there are.

        Those that are up and meant for it; else up; else any that has it: a wrong guess about a
        server's health must not turn away what it would have answered.
        """
        holding = [server for server in self.servers if release_id in server.holds]
        places = self._placement.get(release_id)
        meant = holding if places is None else [s for s in holding if s.index in places]
        return [s for s in meant if s.up] or [s for s in holding if s.up] or meant or holding

    def name_of(self, release_id: str) -> str:
        """Return a server's name for a release."""
        return next((s.holds[release_id] for s in self.holders(release_id)), release_id)

    async def health(self) -> bool:
        """Return whether a server answers, as of the last look."""
        return any(server.up for server in self.servers)

    def answers(self, release_id: str) -> bool:
        """Return whether a server that is up has a release, as of the last looks; asks nobody."""
        return any(server.up and release_id in server.holds for server in self.servers)

    async def stats(self, asker: str = "") -> dict[str, Any]:
        """Return how full the servers' memory is by kind, shares 0..1, and each one's state.

        Each call is a sample of its asker's: what was put back since the one before counts
        (Figures.memory).
        """
        backends = await self.describe()
        memory: dict[str, float] = {}
        for server in [server for server in self.servers if server.up]:
            key = (asker, server.index)
            now, before = server.figures, self._sampled.get(key)
            self._sampled[key] = now
            of = f" of {server.name}" if len(self.servers) > 1 else ""
            memory |= {f"{kind}{of}": share for kind, share in now.memory(before).items()}
        return {"memory": memory, "backends": backends}

    async def describe(self) -> list[dict[str, Any]]:
        """Return each server's state, its figures asked now."""
        await asyncio.gather(*(server.measure() for server in self.servers if server.up))
        return [server.as_dict() for server in self.servers]

    async def _first_look(self, server: RemoteServer) -> EnvironmentProblem | None:
        await server.start()
        try:
            await server.look()
        except EnvironmentProblem as error:
            self._failed[server.index] = _FAILURES
            server.up, server.problem = False, error.sentence()
            return error
        return None

    async def _watch(self, server: RemoteServer) -> None:
        """Look at a server until cancelled: in steps, and at once when it is doubted."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.doubted.wait(), self._every_s)
            doubted = server.doubted.is_set()
            server.doubted.clear()
            try:
                await self._look(server, doubted=doubted)
            except Exception:  # a watcher that ends would leave its server unseen
                _log.exception("the look at %s failed", server.name)

    async def _look(self, server: RemoteServer, *, doubted: bool) -> None:
        why = ""
        try:
            await server.look()
            await self._mend(server)
            self._failed[server.index] = 0
            server.up, server.problem = True, None
        except EnvironmentProblem as error:
            why = error.sentence()
            self._failed[server.index] = self._failed.get(server.index, 0) + 1
            if doubted or self._failed[server.index] >= _FAILURES:
                server.up, server.problem = False, why
        if server.up != self._told.get(server.index, True):
            self._told[server.index] = server.up
            text = f"backend {server.name} answers again" if server.up else f"{server.name}: {why}"
            _log.warning("%s", text)
            self.on_change(server, server.up, text)

    async def _mend(self, server: RemoteServer) -> None:
        """Give a server what it should hold and does not list, and take what nobody wants."""
        if not server.up:
            self._refused = {k: v for k, v in self._refused.items() if k[0] != server.index}
        for release in list(self._wanted.values()):
            target = self._is_target(server, release)
            name = server.name_for(release) if target else None
            if name is not None:
                server.holds[release.id] = name
                continue
            server.holds.pop(release.id, None)
            until, _ = self._refused.get((server.index, release.id), (0.0, ""))
            if target and time.monotonic() >= until:
                await self._hold(server, release, again=True)
        await self._sweep(server)

    async def _sweep(self, server: RemoteServer) -> None:
        """Unload adapters of this project's releases that a gateway before left behind."""
        now = time.monotonic()
        for name in [n for n in server.served if len(n) == 64 and n not in self._wanted]:
            since = self._unwanted.setdefault((server.index, name), now)
            if now - since < _STALE_S:
                continue
            del self._unwanted[server.index, name]
            if await asyncio.to_thread(self._lookup, name) is not None:
                _log.info("%s still had %s, which nobody wants", server.name, name[:12])
                await server.drop(name)
        for place, name in list(self._unwanted):
            if place == server.index and (name in self._wanted or name not in server.served):
                del self._unwanted[place, name]

    async def _hold(
        self, server: RemoteServer, release: Known, *, again: bool = False
    ) -> TutelageError | None:
        key = (server.index, release.id)
        try:
            if again:
                await self.check(release.id)
            await server.hold(release)
        except TutelageError as error:
            _, before = self._refused.get(key, (0.0, ""))
            if str(error) != before:
                _log.warning("%s is not on %s: %s", release.id[:12], server.name, error)
            pause_s = _REFUSED_S if isinstance(error, ModelError) else 0.0
            self._refused[key] = (time.monotonic() + pause_s, str(error))
            return error
        self._refused.pop(key, None)
        return None

    def _is_target(self, server: RemoteServer, release: Known) -> bool:
        """Return whether a release belongs on a server: one kept for it, if there is any."""
        group = self._groups.get(release.id)
        if not server.may_hold(release) or (group is not None and server.index not in group):
            return False
        kept = any(s.backend.release and s.may_hold(release) for s in self.servers)
        return not kept or server.backend.release is not None

    def _targets(self, release: Known) -> list[RemoteServer]:
        """Return the servers to put a release on now: those that are up, if any is."""
        chosen = [server for server in self.servers if self._is_target(server, release)]
        return [server for server in chosen if server.up] or chosen

    def _group(self, release: Known) -> tuple[int, ...]:
        """Return the servers of a release that shares none: those that have it, else free ones.

        Half of all servers (at least one) are taken; raise EnvironmentProblem if none is free.
        """
        taken = {
            place for other, places in self._groups.items() if other != release.id
            for place in places
        }  # fmt: skip
        mine = [s.index for s in self.servers if s.index not in taken and s.may_hold(release)]
        listed = [
            s.index for s in self.servers if s.index in mine and s.name_for(release) is not None
        ]
        if not mine:
            raise EnvironmentProblem(
                f"every server under deploy.endpoints holds another release, so none is free for "
                f"{release.name or release.id[:12]}",
                fix="Wait until the release before is no longer kept (deploy.keep_warm), or add "
                "a server",
            )
        return tuple((listed or mine)[: max(1, len(self.servers) // 2)])

    def _forget(self, release_id: str) -> None:
        self._wanted.pop(release_id, None)
        self._groups.pop(release_id, None)


def _nowhere(release: Known) -> TutelageError:
    return EnvironmentProblem(
        f"no server under deploy.endpoints may hold {release.name or release.id[:12]}: each is "
        "kept for another release",
        fix="Take `release` from one of them, or add a server",
    )


def _lookup_in(workspace: Workspace) -> Lookup:
    """Return what finds a release by its id in the project's store."""

    def lookup(release_id: str) -> Known | None:
        from tutelage.store.base import open_store
        from tutelage.store.releases import ReleaseRow

        store = open_store(workspace.store_url, migrate=False)
        try:
            with store.session() as session:
                row = session.get(ReleaseRow, release_id)
            return Known(row.id, row.name, row.kind) if row else None
        finally:
            store.close()

    return lookup
