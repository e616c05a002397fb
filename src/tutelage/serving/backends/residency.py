"""Which releases are in the engine: loaded before traffic needs them, dropped when nobody does.

Nothing here waits for a load but the first start: a release that is not there yet leaves the
routes as they are, and the other deployments go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tutelage.core.errors import EnvironmentProblem, TutelageError
from tutelage.core.workspace import Workspace
from tutelage.release.bundle import get_release, verify_release
from tutelage.serving.router import Profile
from tutelage.store.base import Store
from tutelage.store.releases import ReleaseRow

_PATIENCE_S = 60.0  # an engine that is being restarted may refuse a load for so long
_LONGEST_PAUSE_S = 30.0  # between two tries
_log = logging.getLogger(__name__)

Placement = Mapping[str, Sequence[int]]  # release -> the replicas that serve it


class Host(Protocol):
    """What holds releases: a launcher.

    Optional: `restarts` (int), `stats()` (memory), `shared` (other gateways use the engine too),
    `place(placement)` (a host of several replicas serves each release from the named ones alone),
    `answers(release)` (whether an engine answers for it now, as far as is known without asking),
    `check` (called with a release's id before it is loaded again; raises TutelageError).
    """

    async def ensure(self, release_id: str, adapter: Path | None) -> None: ...

    async def remove(self, release_id: str) -> None: ...


@dataclass(frozen=True)
class _Failure:
    """A load that did not work: since when, how often, when to try again (monotonic seconds)."""

    since: float
    times: int
    again_at: float
    error: TutelageError


class Residency:
    """The loaded releases of one engine."""

    def __init__(
        self,
        host: Host,
        store: Store,
        workspace: Workspace,
        inflight: Counter[str],
        *,
        grace_s: float,
    ) -> None:
        self.host, self.store, self.workspace = host, store, workspace
        self.loaded: dict[str, Profile] = {}
        self._inflight, self._grace_s = inflight, grace_s
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, _Failure] = {}
        self._unnamed: dict[str, float] = {}  # release -> since when no route names it
        self._placed: Placement = {}
        self._rows: dict[str, ReleaseRow] = {}  # of what was loaded
        self._changed: dict[str, str] = {}  # what could not be loaded again, and why
        if hasattr(host, "check"):
            host.check = self.check

    async def load(self, profile: Profile) -> None:
        """Return when the engine answers for a release; raise TutelageError if it can't."""
        if profile.id in self.loaded:
            return
        row = await asyncio.to_thread(get_release, self.store, profile.id)
        await asyncio.to_thread(verify_release, self.workspace, row)
        adapter = self.workspace.home / profile.adapter if profile.adapter else None
        self._rows[profile.id] = row
        await self.host.ensure(profile.id, adapter)
        self.loaded[profile.id] = profile

    async def check(self, release: str) -> None:
        """Check a release again before the engine loads it again; raise TutelageError if it
        is not what was released. That needs no store.
        """
        row = self._rows.get(release)
        if row is None:
            return
        try:
            await asyncio.to_thread(verify_release, self.workspace, row)
        except OSError as error:
            raise EnvironmentProblem(f"the machine said: {error}") from error
        except TutelageError as error:
            if str(error) != self._changed.get(release):
                _log.error("%s can't be loaded again: %s", row.name, error)
            self._changed[release] = str(error)
            raise
        self._changed.pop(release, None)

    def want(self, profile: Profile) -> bool:
        """Return whether a release is there; if not, see that it is being loaded."""
        if profile.id in self.loaded:
            self._failed.pop(profile.id, None)
            return True
        failed, running = self._failed.get(profile.id), self._loading.get(profile.id)
        if running is not None and not running.done():
            return False
        if failed is None or time.monotonic() >= failed.again_at:
            self._loading[profile.id] = asyncio.create_task(self._try(profile))
        return False

    def fault(self, release: str) -> str | None:
        """Return why a wanted release can't be loaded; None while it may still be."""
        failed = self._failed.get(release)
        if failed is None:
            return self._changed.get(release)
        passing = isinstance(failed.error, EnvironmentProblem)
        if passing and time.monotonic() - failed.since < _PATIENCE_S:
            return None
        return str(failed.error)

    async def place(self, placement: Placement) -> None:
        """Serve each release from the named replicas alone, where the host has several."""
        place: Any = getattr(self.host, "place", None)
        if place is None or placement == self._placed:
            return
        await place(placement)
        self._placed = placement

    async def drop_unused(self, named: set[str]) -> None:
        """Remove what no route has named for the grace period and no request uses."""
        now = time.monotonic()
        for release in [r for r in self._failed if r not in named]:
            del self._failed[release]
        for release in list(self.loaded):
            if release in named:
                self._unnamed.pop(release, None)
                continue
            since = self._unnamed.setdefault(release, now)
            if now - since >= self._grace_s and self._inflight[release] == 0:
                del self.loaded[release], self._unnamed[release]
                self._changed.pop(release, None)
                self._rows.pop(release, None)
                self._inflight.pop(release, None)
                await self.host.remove(release)

    async def close(self) -> None:
        """Stop loading."""
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)

    async def _try(self, profile: Profile) -> None:
        try:
            await self.load(profile)
        except TutelageError as error:
            self._note(profile, error)
        except OSError as error:
            self._note(profile, EnvironmentProblem(f"the machine said: {error}"))

    def _note(self, profile: Profile, error: TutelageError) -> None:
        now = time.monotonic()
        before = self._failed.get(profile.id)
        times = before.times + 1 if before else 1
        pause = min(0.5 * 2**times, _LONGEST_PAUSE_S)
        since = before.since if before else now
        self._failed[profile.id] = _Failure(since, times, now + pause, error)
        if before is None or str(before.error) != str(error):
            _log.error("%s can't be loaded: %s", profile.name, error)
