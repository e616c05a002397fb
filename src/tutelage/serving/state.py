"""Everything one gateway holds while it runs. No decisions are made here."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tutelage.core.artifact import utc_now
from tutelage.core.config import Project
from tutelage.data.split import side_of
from tutelage.release.bundle import manifest_of
from tutelage.release.routes import Route, deployments, route
from tutelage.serving.access.keys import KeyRing
from tutelage.serving.backends.slots import Slots
from tutelage.serving.guards.base import Surroundings
from tutelage.serving.hooks import Hook
from tutelage.serving.monitoring.events import EventLog
from tutelage.serving.monitoring.telemetry import Telemetry
from tutelage.serving.records.request_log import Redactor, RequestLog, keep
from tutelage.serving.router import Entry, Profile, Router, build_profile
from tutelage.serving.wire.body import Room
from tutelage.serving.wire.upstream import Upstream
from tutelage.store.base import Store
from tutelage.store.releases import ReleaseRow

Around = Callable[[ReleaseRow], Surroundings]


def _nothing(release: ReleaseRow) -> Surroundings:
    return Surroundings()


@dataclass
class GatewayState:
    """The parts of a running gateway, composed by workflows/serving/serve.py."""

    project: Project
    store: Store
    router: Router
    log: RequestLog
    upstream: Upstream
    telemetry: Telemetry
    keys: KeyRing
    slots: Slots
    split_key: bytes
    redactor: Redactor = keep
    hooks: tuple[Hook, ...] = ()
    room: Room = field(default_factory=Room)  # for large bodies
    events: EventLog = field(default_factory=EventLog)
    host: Any = None  # the launcher, for what is sampled of it
    around: Around = _nothing  # what guards may know of a release
    ready: bool = False  # routes are loaded and the engine answers
    draining: bool = False
    inflight: Counter[str] = field(default_factory=Counter)  # requests by release id
    refresh: Callable[[], Awaitable[None]] | None = None  # re-read routes and keys now
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def silent(self) -> list[str]:
        """Return the deployments whose stable release no engine answers for, as far as is known."""
        answers = getattr(self.host, "answers", None)  # launchers need not know
        if answers is None:
            return []
        return [name for name, e in self.router.entries.items() if not answers(e.stable.id)]

    def side(self, group: str) -> str:
        """Return the split of a production row's group, by the project's key."""
        return side_of(self.split_key, group, self.project.data.splits)


def load_entries(
    store: Store, project: Project, known: Mapping[str, Profile], around: Around = _nothing
) -> dict[str, Entry]:
    """Return every deployment's route with the profiles it names; `known` ones are reused."""

    def profile(release: str) -> Profile:
        return known.get(release) or _profile(store, release, project, around)

    entries: dict[str, Entry] = {}
    for row in deployments(store):
        found = route(store, row.name)
        canary = previous = None
        if found.canary:
            canary = profile(found.canary)
        if found.previous and _is_warm(found, project.deploy.keep_warm):
            previous = profile(found.previous)
        entries[row.name] = Entry(found, profile(found.stable), canary, previous)
    return entries


def _is_warm(route: Route, keep_warm_s: float) -> bool:
    """Return whether the release before stays loaded: it was stable until a while ago."""
    return route.since is not None and (utc_now() - route.since).total_seconds() < keep_warm_s


def _profile(store: Store, release: str, project: Project, around: Around) -> Profile:
    with store.session() as session:
        row = session.get_one(ReleaseRow, release)
    manifest = manifest_of(row).model_copy(update={"name": row.name})
    # A manifest that was changed has another id; its loading refuses it under the row's.
    return replace(build_profile(manifest, project.deploy, around(row)), id=row.id)
