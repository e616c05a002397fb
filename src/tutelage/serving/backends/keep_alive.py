"""Calls hosted models now and then, so that none is dropped because nobody asked it.

While the gateway runs, APScheduler looks at each model several times an interval; a call is made
when the last success, or the last real request, is an interval ago. What came of it is kept by the
model itself (`Kept`), so that a restart knows. Which models are kept is keep_alive.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from tutelage.serving.hooks import Hook
from tutelage.serving.monitoring.events import EventLog, Happening

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
        """Return what is known of its calls; a real answer is kept for those who ask elsewhere."""
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
            with contextlib.suppress(TutelageError, OSError):  # a full disk: it is tried again
                self._keep(found)
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
    """The schedule of all models that are kept alive by this gateway.

    `find` is asked now and then: a model that was tuned meanwhile is kept too.
    """

    def __init__(
        self,
        find: Callable[[], Sequence[Kept]],
        events: EventLog,
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.kept: dict[str, Kept] = {}  # by name and place
        self._find, self._events, self._now = find, events, now
        self._scheduler: Any = None
        self._problems: dict[str, str | None] = {}

    async def start(self) -> None:
        """Look at each model now, and from then on several times an interval."""
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._scheduler.start()
        await self.refresh()
        self._schedule(self.refresh, "models", _LONGEST_PAUSE_S)

    async def refresh(self) -> None:
        """Take up the models that there are now, and leave those that are gone."""
        try:
            found = await asyncio.to_thread(_by_key, self._find)
        except TutelageError as error:
            _log.error("what is kept alive is not known: %s", error)
            return
        for key in [key for key in self.kept if key not in found]:
            del self.kept[key]
            self._scheduler.remove_job(key)
        for key, (model, pulse) in found.items():
            if key not in self.kept:
                self.kept[key] = model
                pause_s = min(_LONGEST_PAUSE_S, seconds(pulse.every) / _LOOKS)
                self._schedule(self.look, key, pause_s, key)

    async def look(self, key: str) -> bool:
        """Call a model if that is due; return whether it was called. Problems become events."""
        model = self.kept[key]
        now, pulse = self._now(), await asyncio.to_thread(model.pulse)
        if not pulse.is_due(now):
            return False
        problem = None
        try:
            await model.call(now)
        except TutelageError as error:
            problem = error.sentence()
        before = self._problems.get(key)
        self._problems[key] = problem
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

    def _schedule(self, work: Callable[..., Any], name: str, pause_s: float, *args: Any) -> None:
        self._scheduler.add_job(
            work,
            "interval",
            args=args,
            id=name,
            seconds=pause_s,
            jitter=pause_s / 10,
            next_run_time=datetime.now(UTC),
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )


def _by_key(find: Callable[[], Sequence[Kept]]) -> dict[str, tuple[Kept, Pulse]]:
    pulses = [(model, model.pulse()) for model in find()]
    return {f"{pulse.name} at {pulse.where}": (model, pulse) for model, pulse in pulses}
