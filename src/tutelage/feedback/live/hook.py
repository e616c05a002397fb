"""Live evaluation beside a running gateway: a thread that draws, scores and watches.

Requests cost it nothing: it reads the request log once the records are there, rests as long as it
works, and is told of nothing on the hot path.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from datetime import datetime, timedelta

from tutelage.core.artifact import utc_now
from tutelage.core.config_alerts import Level
from tutelage.feedback.live.draw import last_drawn, waiting
from tutelage.feedback.live.judging import BUDGET
from tutelage.feedback.live.scoring import Parts, Pass, Scoring
from tutelage.feedback.live.watch import QualityWatch
from tutelage.serving.hooks import Hook
from tutelage.serving.monitoring.events import Happening
from tutelage.serving.monitoring.live_meters import LiveMeters
from tutelage.serving.state import GatewayState

_OVERLAP = timedelta(minutes=1)  # how late a record may be written
_LATE = timedelta(hours=1)  # how late one of a gateway that was killed may come
_LONGEST = timedelta(days=1)  # without live evaluation: what is older stays unscored
_LOOK_S = 10.0  # between two looks at the log when nothing was written here
_AGAIN_S = 600.0  # between two looks for records that came late
_WATCH_S = 30.0  # between two looks at what serves when nothing was scored
_CLOSE_S = 10.0  # that a batch under way may take when the gateway stops
_log = logging.getLogger(__name__)


class LiveEvaluator(Hook):
    """The gateway's worker."""

    def __init__(self, state: GatewayState, parts: Parts, *, every_s: float = 1.0) -> None:
        self._state, self._every_s = state, every_s
        self._scoring = Scoring(state.store, parts)
        self.watch = QualityWatch(state.store, parts.settings, state.events)
        self._meters = LiveMeters(state.telemetry.registry)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-evaluation", daemon=True)
        self._born = utc_now()
        self._upto: datetime | None = None  # everything before was drawn
        self._written = -1
        self._looked = self._late = self._watched = 0.0  # time.monotonic()
        self._day = ""  # of the last word about the budget

    async def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def close(self) -> None:
        """End after the batch under way; what waits is scored after the next start."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, _CLOSE_S)
        if not self._thread.is_alive():
            await asyncio.to_thread(self._scoring.close)

    def work(self) -> None:
        """Draw what is new, score all that waits, and look at what it proves."""
        self._draw()
        worked = False
        while not self._stop.is_set():
            began = time.monotonic()
            done = self._scoring.step()
            if not done:
                break
            worked = True
            self._show(done)
            self._stop.wait(time.monotonic() - began)
        if worked or time.monotonic() - self._watched >= _WATCH_S:
            self._watched = time.monotonic()
            self.watch.look()
            self._meters.waiting(waiting(self._state.store))

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.work()
            except Exception:  # what waited waits still
                _log.exception("live evaluation failed, and goes on")
                self._stop.wait(_LOOK_S)

    def _draw(self) -> None:
        now, written = time.monotonic(), self._state.log.records_written
        if written == self._written and now - self._looked < _LOOK_S:
            return
        self._written, self._looked = written, now
        late = now - self._late >= _AGAIN_S
        since = self._begin() if self._upto is None else self._upto - (_LATE if late else _OVERLAP)
        if late:
            self._late = now
        self._upto = max(self._scoring.draw(since), self._upto or since)

    def _begin(self) -> datetime:
        """Return from when on records count: a while before what was drawn last, or our start."""
        last = last_drawn(self._state.store)
        return self._born if last is None else max(last - _LATE, self._born - _LONGEST)

    def _show(self, done: Pass) -> None:
        for (deployment, release, metric), values in done.values.items():
            self._meters.scored(deployment, release, metric, values)
        self._meters.judged(done.judged, done.tokens)
        today = f"{utc_now():%Y-%m-%d}"
        if done.problem and today != self._day:
            self._day = today
            text = f"some live answers are not judged today: {done.problem}"
            level: Level = "info" if done.problem == BUDGET else "warning"
            self._state.events.tell(
                Happening("judge.silent", text, level=level, once=f"judge.silent {today}")
            )
