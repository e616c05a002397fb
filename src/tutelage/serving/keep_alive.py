"""Calls models of other houses now and then, so that none is dropped because nobody asked it.

While the gateway runs, APScheduler looks at each model several times an interval; a call is made
when the last success, or the last real request, is an interval ago. What came of it is kept by the
model itself (`Kept`), so that a restart knows. Which models are kept is workflows/keep_alive.py's.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from tutelage.core.artifact import utc_now
from tutelage.core.config_deploy import Backend
from tutelage.core.durations import seconds
from tutelage.core.errors import EnvironmentProblem, TutelageError
from tutelage.core.workspace import atomic_write
from tutelage.inference.openai_http import Patience, authorization, endpoint_url, post
from tutelage.serving.events import EventLog, Happening
from tutelage.serving.hooks import Hook

_LOOKS = 8  # an interval
_LONGEST_PAUSE_S = 900.0  # between two looks: a laptop that slept is late by no more
_TIMEOUT_S = 120.0  # a model that was put away takes its time
_AHEAD = timedelta(minutes=1)  # a last success later than this was written by a wrong clock
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pulse:
    """What is known of a model's calls. `every` is such as 7d."""

    name: str
    where: str
    model: str
    every: str
    last_success: datetime | None = None
    problem: str | None = None  # of the last call, if it failed

    @property
    def due_at(self) -> datetime | None:
        """When the next call is due; None: now."""
        return self.last_success and self.last_success + timedelta(seconds=seconds(self.every))

    def is_due(self, now: datetime) -> bool:
        """Return whether to call at `now`."""
        due = self.due_at
        wrong = self.last_success is not None and self.last_success > now + _AHEAD
        return due is None or wrong or now >= due

    def as_dict(self) -> dict[str, Any]:
        """Return plain data; times are ISO 8601."""
        found = {**asdict(self), "due_at": self.due_at}
        for name in ("last_success", "due_at"):
            at = found[name]
            found[name] = at.isoformat(timespec="seconds") if at else None
        return found


class Kept(Protocol):
    """A model that is kept alive."""

    def pulse(self) -> Pulse:
        """Return what is known of its calls."""
        ...

    async def call(self, now: datetime) -> None:
        """Call it once and keep what came of it; raise TutelageError if it did not answer."""
        ...


class KeptEndpoint:
    """A server's model. `answered()` is when it last answered a real request, if it did."""

    def __init__(
        self,
        backend: Backend,
        file: Path,
        every: str,
        answered: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        self.backend, self.file, self.every, self.answered = backend, file, every, answered

    def pulse(self) -> Pulse:
        """Return what is known of its calls."""
        backend = self.backend
        found = Pulse(backend.name or backend.model, backend.base_url, backend.model, self.every)
        try:
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            if kept["model"] == backend.model and kept["where"] == backend.base_url:
                last = kept["last_success"]
                at = datetime.fromisoformat(last) if last else None
                found = replace(found, last_success=at, problem=kept["problem"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # never called, or a file that a person wrote to: it is called again
        real = self.answered()
        if real is not None and (found.last_success is None or real > found.last_success):
            found = replace(found, last_success=real, problem=None)
        return found

    async def call(self, now: datetime) -> None:
        """Ask the model for one token."""
        try:
            await self._ask()
        except TutelageError as error:
            self._keep(replace(self.pulse(), problem=error.sentence()))
            raise
        self._keep(replace(self.pulse(), last_success=now, problem=None))

    async def _ask(self) -> None:
        url = endpoint_url(self.backend.base_url, "chat/completions")
        headers = authorization(self.backend.api_key_env)
        messages = [{"role": "user", "content": "ping"}]
        body: dict[str, Any] = {"model": self.backend.model, "messages": messages}
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as client:
            reply = await post(client, url, {**body, "max_tokens": 1}, Patience(2))
            if reply.body is None and "max_completion_tokens" in reply.problem:
                reply = await post(client, url, {**body, "max_completion_tokens": 1}, Patience(2))
        if reply.body is None:
            raise EnvironmentProblem(
                f"{self.backend.model} does not answer ({reply.problem})",
                where=self.backend.base_url,
                fix="Look whether the service still has it",
            )

    def _keep(self, pulse: Pulse) -> None:
        atomic_write(self.file, json.dumps(pulse.as_dict(), indent=1).encode())


class KeepAlive(Hook):
    """The schedule of all models that are kept alive by this gateway."""

    def __init__(
        self,
        kept: Sequence[Kept],
        events: EventLog,
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.kept, self._events, self._now = tuple(kept), events, now
        self._scheduler: Any = None
        self._problems: dict[int, str | None] = {}

    async def start(self) -> None:
        """Look at each model now, and from then on several times an interval."""
        if not self.kept:
            return
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        self._scheduler = AsyncIOScheduler(timezone=UTC)
        for place, model in enumerate(self.kept):
            pause_s = min(_LONGEST_PAUSE_S, seconds(model.pulse().every) / _LOOKS)
            self._scheduler.add_job(
                self.look,
                "interval",
                args=(place,),
                id=f"keep-alive-{place}",
                seconds=pause_s,
                jitter=pause_s / 10,
                next_run_time=datetime.now(UTC),
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
            )
        self._scheduler.start()

    async def look(self, place: int) -> bool:
        """Call a model if that is due; return whether it was called. Problems become events."""
        model = self.kept[place]
        now, pulse = self._now(), model.pulse()
        if not pulse.is_due(now):
            return False
        problem = None
        try:
            await model.call(now)
        except TutelageError as error:
            problem = error.sentence()
        before = self._problems.get(place)
        self._problems[place] = problem
        if problem is not None and problem != before:
            text = f"{pulse.name} was not kept alive: {problem}"
            self._events.tell(Happening("keep_alive.failed", text, "error", subject=pulse.name))
        elif problem is None and before is not None:
            text = f"{pulse.name} answers again"
            self._events.tell(Happening("keep_alive.ok", text, subject=pulse.name))
        _log.info("called %s to keep it alive", pulse.name)
        return True

    async def close(self) -> None:
        """End the schedule."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            await asyncio.sleep(0)  # it ends in the loop's next round
            self._scheduler = None
