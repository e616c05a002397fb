"""Shadow traffic: copies of requests that the candidate answers and nobody sees.

A copy never delays, changes or bills its request. There are few at a time, one is only made while
the engine has room to spare, and it is dropped as soon as a request wants its place. Its answer
is checked and logged with the arm `shadow`, so that a rollout can judge it; with no key, so that
no budget pays for it.

A copy is at the engine behind its request, so it is slower than that in any case. What the
candidate's copies are compared with are therefore copies too: half of them, drawn by the record,
go to the stable release. The record's release tells which.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tutelage.inference.chat import as_dicts, conversation
from tutelage.release.evidence import TURNED_AWAY
from tutelage.release.routes import Route
from tutelage.serving.guards.checking import Checking
from tutelage.serving.hooks import Ask, Hook, Outcome
from tutelage.serving.records.log_policy import keeps_texts
from tutelage.serving.records.record_row import record_row
from tutelage.serving.records.record_texts import answer_text, record_texts
from tutelage.serving.router import Entry, Profile, bucket
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.upstream_answer import Answer
from tutelage.serving.wire.wire import HttpError
from tutelage.serving.wire.wire_tools import words_of

ARM = "shadow"
_log = logging.getLogger(__name__)
_HALF = 50.0  # percent
_SHARE = 4  # copies at once: a quarter of the requests that the engine takes


class Mirror(Hook):
    """Sends copies of a share of the requests to the candidate of a shadow step."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state
        self._room = state.project.deploy.concurrency
        self._most = max(1, self._room // _SHARE)
        self._running: set[str] = set()  # records of requests under way
        self._copies: dict[str, asyncio.Task[None]] = {}  # by the record they copy
        self.made = self.shed = 0

    async def admit(self, ask: Ask) -> None:
        """Copy the request if it is of the share and there is room; never wait."""
        self._running.add(ask.record)
        self._make_room()
        entry = self._state.router.entries.get(ask.deployment)
        if entry is None or not self._is_of_the_share(ask, entry):
            return
        if len(self._copies) >= self._most or self._load() >= self._room:
            self.shed += 1
            return
        self.made += 1
        task = asyncio.create_task(self._copy(ask, entry))
        self._copies[ask.record] = task
        task.add_done_callback(partial(self._ended, ask.record))

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        """Forget the request; the copy of one that was turned away ends too."""
        self._running.discard(ask.record)
        copy = self._copies.get(ask.record)
        if copy is not None and outcome.status in TURNED_AWAY:
            copy.cancel()

    async def close(self) -> None:
        """Drop all copies under way."""
        copies = list(self._copies.values())
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)

    def _ended(self, record: str, task: asyncio.Task[None]) -> None:
        """Forget a copy; one that failed in a way of ours is told to the log alone."""
        self._copies.pop(record, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("the copy of %s failed", record, exc_info=error)

    def _is_of_the_share(self, ask: Ask, entry: Entry) -> bool:
        route = entry.route
        if not route.mirrored or entry.canary is None or ask.rollout != route.rollout:
            return False
        return bucket(route.salt, f"{route.rollout}\x00mirror", ask.record) < route.mirrored

    def _load(self) -> int:
        return len(self._running) + len(self._copies)

    def _make_room(self) -> None:
        """Drop the newest copies while there is more at the engine than it takes."""
        for record in reversed(list(self._copies)):
            if self._load() <= self._room:
                return
            self.shed += 1
            self._copies.pop(record).cancel()

    async def _copy(self, ask: Ask, entry: Entry) -> None:
        control = is_control(entry.route, ask.record)
        profile = entry.stable if control else entry.canary
        if profile is None:
            return
        flagged = self._state.telemetry.flags_of(ask.deployment, profile.id, ARM)
        checking = Checking(profile.guards, ask.messages, flagged)
        copy = _Copy(ask, profile, checking)
        self._state.inflight[profile.id] += 1
        try:
            copy.take(await self._state.upstream.complete(_body(ask, entry.stable, profile)))
            await copy.check()
        except HttpError as error:
            copy.status, copy.error = error.status, error.message
        finally:
            self._state.inflight[profile.id] -= 1
        await self._keep(copy)

    async def _keep(self, copy: _Copy) -> None:
        ask, state, outcome = copy.ask, self._state, copy.outcome()
        arm = (ask.deployment, copy.profile.id, ARM)
        tokens = (outcome.prompt_tokens, outcome.completion_tokens)
        state.telemetry.finished(arm, outcome.status, outcome.latency_ms, None, tokens)
        texts = keeps_texts(state.project.deploy, ask.record)
        messages, said = (
            await asyncio.to_thread(
                record_texts, ask.messages, copy.said, copy.calls, state.redactor
            )
            if texts
            else ([], "")
        )
        name = f"{ask.record}-{ARM}"
        of_copy = replace(ask, record=name, release=copy.profile.id, arm=ARM, key=None, user=None)
        state.log.record(record_row(state, of_copy, outcome, messages, said, texts=texts))


@dataclass
class _Copy:
    """One copy on its way."""

    ask: Ask
    profile: Profile
    checking: Checking
    started: float = field(default_factory=time.perf_counter)
    said: str = ""
    calls: Sequence[Mapping[str, Any]] = ()  # of tools
    finish_reason: str = ""
    status: int = 200
    error: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict)

    def take(self, answer: Answer) -> None:
        """Keep what the engine said."""
        self.said, self.calls = answer.text, answer.tool_calls or ()
        self.finish_reason, self.usage = answer.finish_reason, answer.usage

    def outcome(self) -> Outcome:
        """Return how it ended, now."""
        return Outcome(
            status=self.status,
            error=self.error,
            text=answer_text(self.said, self.calls),
            finish_reason=self.finish_reason,
            prompt_tokens=self.usage.get("prompt_tokens", 0),
            completion_tokens=self.usage.get("completion_tokens", 0),
            latency_ms=(time.perf_counter() - self.started) * 1000,
            first_token_ms=None,
            checks=self.checking.notes,
        )

    async def check(self) -> None:
        """Let the candidate's guards see the answer; one that blocks makes it a 422."""
        said = "\n".join(filter(None, [self.said, words_of(self.calls)]))
        why = await self.checking.answer(said, self.finish_reason)
        if why is not None:
            self.status, self.error = 422, f"The answer was held back: {why}."


def is_control(route: Route, record: str) -> bool:
    """Return whether the copy of this record goes to the stable release."""
    return bucket(route.salt, f"{route.rollout}\x00control", record) < _HALF


def _body(ask: Ask, stable: Profile, candidate: Profile) -> dict[str, Any]:
    """Return what the candidate's engine is asked: the client's wishes, its own release."""
    asked = ask.body()
    wishes = {k: v for k, v in asked.items() if k not in stable.settings}
    turns = conversation(ask.messages, candidate.prompt, candidate.specials)
    body = {**wishes, **candidate.settings, "messages": as_dicts(turns)}
    body["max_tokens"] = min(ask.max_tokens, candidate.max_tokens)
    stop = [*candidate.stop, *list(asked.get("stop") or ())[len(stable.stop) :]]
    if stop:
        body["stop"] = stop
    else:
        body.pop("stop", None)
    return body
