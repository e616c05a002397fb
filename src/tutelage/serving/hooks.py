"""What else may look at requests on their way: one base class, called at two points of each.

A hook refuses (budgets, limits), copies (mirrors), counts or traces. It decides nothing about
routing and never changes a request or an answer; which hooks run is composed in workflows.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from tutelage.core.example import Message

_log = logging.getLogger(__name__)

# Headers that the engine is asked with for the request under way; a hook sets them in `admit`.
engine_headers: ContextVar[Mapping[str, str] | None] = ContextVar("engine_headers", default=None)


@dataclass(slots=True)  # frozen ones take several times as long to make
class Ask:
    """A request that has been routed. Texts are as the client sent them, not redacted.

    A hook changes nothing of it but `reply_headers`.
    `headers` are the client's, in lower case, without the key it showed. What a hook puts into
    `reply_headers` before the answer begins is sent with it.
    """

    record: str
    deployment: str
    release: str
    arm: str
    rollout: str | None
    step: int | None
    key: str | None  # the key's name; None for the local user
    role: str
    user: str | None  # as sent
    group: str  # what keeps the row on one side of the split
    stream: bool
    messages: tuple[Message, ...]
    max_tokens: int  # asked for, capped by the release
    body: Callable[[], dict[str, Any]]  # what the engine is asked, made anew at each call
    started: float  # time.perf_counter() at arrival
    headers: Mapping[str, str]
    release_name: str = ""
    tuned: bool = False  # whether the release has an adapter
    reply_headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """How a request ended. Tokens are the engine's count; if it gave none, likely ones.

    `status` 499: the client left. `checks` holds what each guard said: {name: {ok, why}}.
    `entropy` is in nats a token, where the client asked for log-probabilities.
    """

    status: int
    error: str | None
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float
    first_token_ms: float | None
    checks: Mapping[str, Mapping[str, Any]]
    entropy: float | None = None


class Hook:
    """The base: does nothing. Override what you need."""

    async def start(self) -> None:
        """Begin, on the gateway's loop, before the first request."""

    async def admit(self, ask: Ask) -> None:
        """See a request before guards, the queue and the engine do; raise HttpError to refuse.

        Hooks are asked in order, and the first refusal ends the request.
        """

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        """See how a request ended: once for each, whatever happened, refusals included.

        It runs on the hot path: it must neither block nor raise. A hook also hears of requests
        that another hook refused before it was asked.
        """

    async def close(self) -> None:
        """End: no request comes after this."""


class BackgroundHook(Hook, ABC):
    """A hook whose `_run` goes on beside the requests until the gateway ends, which cancels it."""

    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End, in the middle if need be."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @abstractmethod
    async def _run(self) -> None: ...


def tell_finished(hooks: tuple[Hook, ...], ask: Ask, outcome: Outcome) -> None:
    """Tell every hook; one that raises is logged and keeps nobody from hearing."""
    for hook in hooks:
        try:
            hook.finished(ask, outcome)
        except Exception:
            _log.exception("%s failed on the end of %s", type(hook).__name__, ask.record)
