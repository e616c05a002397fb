"""Tells when the scores prove that a release which serves got worse, and when it serves no more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tutelage.core.artifact import content_hash
from tutelage.core.config_live import LiveEvaluation
from tutelage.feedback.live.standings import Key, Standing, Standings, release_names, replaced
from tutelage.release.routes import deployments, route
from tutelage.serving.monitoring.events import EventLog, Happening, read_events
from tutelage.store.base import Store

FALLEN, ENDED = "quality.dropped", "quality.ended"
_TOLD = 1_000  # newest events that are read at the start

Subject = tuple[str, str]  # deployment, what its event is about


class QualityWatch:
    """Keeps the standings of what serves, and makes each fall one event."""

    def __init__(self, store: Store, settings: LiveEvaluation, events: EventLog) -> None:
        self._store, self._settings, self._events = store, settings, events
        self._standings = Standings(store, settings)
        self._open: dict[Subject, str] | None = None  # subject → release
        self.shown: dict[Key, list[Standing]] = {}

    def look(self) -> None:
        """Read what is new, and tell what it proves."""
        if self._open is None:
            self._open = self._told()
        served = served_releases(self._store)
        before = replaced(self._store)
        others = {before[key] for key in served if key in before}
        touched = self._standings.read({release for _, release in served} | others)
        moved = {(deployment, release) for deployment, release in touched}
        for key in served:
            theirs = (key[0], before.get(key, ""))
            if key not in self.shown or key in moved or theirs in moved:
                self.shown[key] = self._standings.of(key, before.get(key))
                self._tell_fallen(key, self.shown[key])
        self._tell_ended(served)

    def _told(self) -> dict[Subject, str]:
        """Return what was told before this process began and is not over."""
        found: dict[Subject, str] = {}
        for event in read_events(self._store, kind="quality", limit=_TOLD):
            subject = (event.deployment or "", event.subject)
            if event.kind == FALLEN:
                found[subject] = str(event.data.get("release", ""))
            elif event.kind == ENDED:
                found.pop(subject, None)
        return found

    def _tell_fallen(self, key: Key, standings: Iterable[Standing]) -> None:
        for standing in standings:
            subject = (key[0], f"{key[1][:12]} {standing.metric}"[:80])
            if not standing.fallen or self._open is None or subject in self._open:
                continue
            self._open[subject] = key[1]
            names = release_names(self._store)
            name = names.get(key[1], key[1][:12])
            self._tell(
                FALLEN, f"{name}: {standing.sentence(names)}", subject, key[1],
                level="warning", data=standing.as_dict(),
            )  # fmt: skip

    def _tell_ended(self, served: Iterable[Key]) -> None:
        there = set(served)
        for subject, release in list((self._open or {}).items()):
            if (subject[0], release) not in there and self._open is not None:
                del self._open[subject]
                text = f"{subject[1]}: that release does not serve any more"
                self._tell(ENDED, text, subject, release)

    def _tell(self, kind: str, message: str, subject: Subject, release: str, **more: Any) -> None:
        data = {"release": release, **more.pop("data", {})}
        once = content_hash([kind, *subject])[:40]
        self._events.tell(
            Happening(
                kind, message, deployment=subject[0], subject=subject[1], data=data, once=once,
                **more,
            )
        )  # fmt: skip


def served_releases(store: Store) -> list[Key]:
    """Return which releases answer in which deployments now."""
    found = []
    for row in deployments(store):
        now = route(store, row.name)
        found.append((row.name, now.stable))
        if now.canary is not None:
            found.append((row.name, now.canary))
    return found
