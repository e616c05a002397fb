"""Watches what passes through a gateway for drift from the golden rows, beside the requests.

A request costs it a few microseconds: lengths and the beginnings of texts go into a short queue,
and a thread looks at up to fifty a second of them, drawn at random. Changes become events; texts
are dropped as soon as they were looked at.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge

from tutelage.core.config_alerts import Level
from tutelage.core.config_guards import StatisticsLayer
from tutelage.core.example import Message
from tutelage.core.output import OutputFormat
from tutelage.data.filters.language import other_language
from tutelage.release.bundle import manifest_of
from tutelage.serving.guards.drift import Drift, LabelSeries, NumberSeries, Watch
from tutelage.serving.guards.window import Side, Window, label_of
from tutelage.serving.hooks import Ask, BackgroundHook, Outcome
from tutelage.serving.monitoring.events import Happening, read_events
from tutelage.serving.state import GatewayState
from tutelage.store.releases import ReleaseRow

PER_SECOND = 50  # requests looked at, at most
_QUEUE = 1_000  # requests kept for the next look
_TOLD = 1_000  # newest events that are read at the start
_TEXT = 400  # characters of a text that a language is told by
_LABELLED = 4_000  # characters of an answer that may hold a label
_MAIN, _ELSE = "the usual", "another"
_PLAIN = {
    "request length": "lengths of requests",
    "request language": "languages of requests",
    "answer length": "lengths of answers",
    "answer language": "languages of answers",
    "label": "labels of answers",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sight:
    """What is kept of a request until it is looked at. Lengths in characters."""

    request_length: int
    request: str
    answer_length: int
    answer: str

    @classmethod
    def of(cls, messages: Sequence[Message], answer: str, *, labels: bool) -> Sight:
        """Return what to keep of a request and its answer."""
        text = "\n".join(turn.content for turn in messages if turn.role != "system")
        most = _LABELLED if labels else _TEXT
        return cls(len(text), text[:_TEXT], len(answer), answer[:most])


class Watches:
    """The series of one release in one deployment, against its golden window."""

    def __init__(
        self, window: Window, output: OutputFormat, layer: StatisticsLayer, seed: int
    ) -> None:
        self._output = output
        self._mains = window.request.main, window.answer.main
        made: dict[str, NumberSeries | LabelSeries] = {}
        rng = np.random.default_rng(seed)
        for name, side in (("request", window.request), ("answer", window.answer)):
            if len(side.lengths) < layer.rows:
                continue
            made[f"{name} length"] = NumberSeries(side.lengths, rng, layer.window)
            if side.main is not None and sum(side.languages.values()) >= layer.rows:
                made[f"{name} language"] = LabelSeries(_languages(side), rng, layer.window)
        if sum(window.labels.values()) >= layer.rows:
            made["label"] = LabelSeries(window.labels, rng, layer.window)
        threshold = float(layer.run_length * max(1, len(made)))
        self._watches = {
            name: Watch(name, series, threshold, layer.notable) for name, series in made.items()
        }

    def add(self, sight: Sight) -> list[Drift]:
        """Take one request; return what changed by it."""
        values = self._values(sight)
        changes = (
            watch.add(values[name]) for name, watch in self._watches.items() if name in values
        )
        return [change for change in changes if change is not None]

    def states(self) -> list[Drift]:
        """Return what every series shows now."""
        return [watch.state() for watch in self._watches.values()]

    def _values(self, sight: Sight) -> dict[str, Any]:
        found: dict[str, Any] = {
            "request length": sight.request_length,
            "answer length": sight.answer_length,
        }
        if "label" in self._watches:
            found["label"] = label_of(sight.answer, self._output)
        texts = (("request language", sight.request), ("answer language", sight.answer))
        for (name, text), main in zip(texts, self._mains, strict=True):
            if name in self._watches and main is not None:
                found[name] = _ELSE if other_language(text, main) else _MAIN
        return found


def _languages(side: Side) -> dict[str, int]:
    """Return how many rows are in the usual language, and how many surely are not."""
    usual = side.languages[str(side.main)]
    surely = sum(side.languages.values())
    return {_MAIN: len(side.lengths) - surely + usual, _ELSE: surely - usual}


class DriftMonitor(BackgroundHook):
    """The gateway's watch. `sights` restores what a release was seen to do before a restart."""

    def __init__(
        self,
        state: GatewayState,
        *,
        seed: int = 7,
        every_s: float = 1.0,
        sights: Callable[[str, str], Iterable[Sight]] = lambda deployment, release: (),
    ) -> None:
        self._state, self._seed, self._every_s, self._sights = state, seed, every_s, sights
        self._layer = state.project.deploy.guards.statistics
        output = state.project.output.format()
        self._closed = bool(output.field or output.labels)
        self._random = random.Random(seed)
        self._queue: deque[tuple[str, str, Sight]] = deque()
        self._watches: dict[tuple[str, str], Watches | None] = {}
        self._shown: dict[tuple[str, str], tuple[Drift, ...]] = {}
        self._names: dict[str, str] = {}  # of releases, by id
        self._open: dict[tuple[str, str], str] | None = None  # (deployment, subject): release
        self.skipped = 0  # requests that were not looked at
        self._meters = DriftMeters(state.telemetry.registry)

    async def close(self) -> None:
        """Look at what is waiting, and end."""
        await super().close()
        await asyncio.to_thread(self.look)

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        """Keep an answered request for the next look."""
        if outcome.status != 200:
            return
        if len(self._queue) >= _QUEUE:
            self.skipped += 1
            return
        sight = Sight.of(ask.messages, outcome.text, labels=self._closed)
        self._queue.append((ask.deployment, ask.release, sight))

    def look(self) -> None:
        """Look at what is waiting, in a thread of its own."""
        if self._open is None and self._state.router.entries:
            self._open = self._told()
        waiting = [self._queue.popleft() for _ in range(len(self._queue))]
        most = max(1, round(PER_SECOND * self._every_s))
        if len(waiting) > most:
            self.skipped += len(waiting) - most
            waiting = [waiting[i] for i in sorted(self._random.sample(range(len(waiting)), most))]
        touched = set()
        for deployment, release, sight in waiting:
            watches = self._of(deployment, release)
            if watches is not None:
                touched.add((deployment, release))
                for change in watches.add(sight):
                    self._tell(deployment, release, change)
        for deployment, release in touched:
            watches = self._watches[deployment, release]
            states = tuple(watches.states()) if watches else ()
            self._shown[deployment, release] = states
            self._meters.show(deployment, release, states)
        self._leave(self._gone())
        self._meters.skipped(self.skipped)

    def states(self, deployment: str, release: str) -> tuple[Drift, ...]:
        """Return what was known of a release at the last look; empty if nothing is watched."""
        return self._shown.get((deployment, release), ())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                if self._queue or self._gone() or self._open is None:
                    await asyncio.to_thread(self.look)
            except Exception:  # what was waiting is lost to the watch, and to nothing else
                _log.exception("a look for drift failed")

    def _gone(self) -> set[tuple[str, str]]:
        """Return the deployments and releases that are known here and get no requests any more."""
        entries = self._state.router.entries
        arms = [(name, entry.route) for name, entry in entries.items()]
        served = {(name, release) for name, at in arms for release in (at.stable, at.canary)}
        told = (self._open or {}).items()
        known = {(deployment, release) for (deployment, _), release in told}
        return {*self._watches, *known} - served

    def _leave(self, gone: set[tuple[str, str]]) -> None:
        """Forget releases, and tell that what was said of them is over."""
        for deployment, release in gone:
            self._meters.forget(deployment, release, self._shown.pop((deployment, release), ()))
            self._watches.pop((deployment, release), None)
        for (deployment, subject), release in list((self._open or {}).items()):
            if (deployment, release) in gone:
                message = f"{self._name(release)} does not serve {deployment} any more"
                self._event("drift.ended", message, deployment, subject, {"release": release})

    def _told(self) -> dict[tuple[str, str], str]:
        """Return what was told before this process began and is not over."""
        found: dict[tuple[str, str], str] = {}
        for event in read_events(self._state.store, kind="drift", limit=_TOLD):
            key = (event.deployment or "", event.subject)
            if event.kind == "drift.ended":
                found.pop(key, None)
            elif "release" in event.data:  # others watch whole deployments
                found[key] = str(event.data["release"])
        return found

    def _of(self, deployment: str, release: str) -> Watches | None:
        key = (deployment, release)
        if key not in self._watches:
            with self._state.store.session() as session:
                row = session.get_one(ReleaseRow, release)
            made = watches_of(row, self._state.around(row).window, self._layer, self._seed)
            if made is not None:
                for sight in self._sights(deployment, release):
                    made.add(sight)
            self._watches[key] = made
        return self._watches[key]

    def _name(self, release: str) -> str:
        if release not in self._names:
            with self._state.store.session() as session:
                row = session.get(ReleaseRow, release)
            self._names[release] = row.name if row is not None else release[:12]
        return self._names[release]

    def _tell(self, deployment: str, release: str, change: Drift) -> None:
        """Make a change an event, which alerts follow."""
        turned = "differ from" if change.drifted else "are again like"
        message = (
            f"{self._name(release)}: the {_PLAIN.get(change.series, change.series)} {turned} "
            f"those of the rows that it was evaluated on: {change.why}"
        )
        self._event(
            "drift.found" if change.drifted else "drift.ended",
            message,
            deployment,
            f"{release[:12]} {change.series}",
            {"release": release, **change.as_dict()},
        )

    def _event(
        self, kind: str, message: str, deployment: str, subject: str, data: dict[str, Any]
    ) -> None:
        found, open_now = kind == "drift.found", self._open if self._open is not None else {}
        if found:
            open_now[deployment, subject] = str(data["release"])
        else:
            open_now.pop((deployment, subject), None)
        level: Level = "warning" if found else "info"
        self._state.events.tell(
            Happening(kind, message, level, deployment=deployment, subject=subject, data=data)
        )


def watches_of(
    row: ReleaseRow, window: Window | None, layer: StatisticsLayer, seed: int
) -> Watches | None:
    """Return the series of a release, or None where there is no window to compare with."""
    if window is None:
        return None
    output = manifest_of(row).output
    return Watches(window, OutputFormat(output.field, output.labels), layer, seed)


class DriftMeters:
    """What Prometheus is shown."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("deployment", "release", "series")
        self._index = Gauge(
            "tutelage_drift_index",
            "Stability index of the latest requests against the golden rows, chance taken off.",
            labels,
            registry=registry,
        )
        self._found = Gauge(
            "tutelage_drift_found", "1 while a series has drifted.", labels, registry=registry
        )
        self._skipped = Counter(
            "tutelage_drift_skipped", "Requests not looked at for drift.", registry=registry
        )
        self._told = 0

    def show(self, deployment: str, release: str, states: Iterable[Drift]) -> None:
        """Show the state of a release's series."""
        for drift in states:
            labels = (deployment, release[:12], drift.series)
            self._index.labels(*labels).set(drift.index)
            self._found.labels(*labels).set(float(drift.drifted))

    def forget(self, deployment: str, release: str, states: Iterable[Drift]) -> None:
        """Show a release's series no more."""
        for drift in states:
            for gauge in (self._index, self._found):
                gauge.remove(deployment, release[:12], drift.series)

    def skipped(self, count: int) -> None:
        """Show how many requests were not looked at."""
        self._skipped.inc(count - self._told)
        self._told = count
