"""What the guards say of one request and its answer, and what may be sent of an answer meanwhile.

A guard that fails is an objection of its own: where it blocks, nothing passes unchecked. Long
texts are read in a thread, so that other requests are not kept waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from tutelage.core.example import Message
from tutelage.serving.guards.base import BEGUN, WHOLE, WITHIN, ActiveGuard, Objection, Said

INLINE = 2_000  # characters that are checked on the gateway's loop
_STEP = 64  # new characters before a stream is looked at again
_CONTEXT = 200  # characters before what is unsent that are looked at with it
_log = logging.getLogger(__name__)

Flagged = Callable[[str, str], None]


class Checking:
    """The guards' view of one request.

    `notes` is what the record keeps: {guard: {ok, why, checks}}, answers under the guard's name,
    requests under NAME.request. `flagged(name, action)` is told of every objection.
    """

    def __init__(
        self,
        guards: Sequence[ActiveGuard],
        messages: Sequence[Message],
        flagged: Flagged,
    ) -> None:
        self._guards, self._messages, self._flagged = guards, messages, flagged
        self.size = sum(len(turn.content) for turn in messages)
        self.notes: dict[str, dict[str, Any]] = {}

    async def request(self) -> str | None:
        """Let every guard see the request; return why it must not pass, or None."""
        if self.size > INLINE and self._guards:
            return await asyncio.to_thread(self.request_now)
        return self.request_now()

    def request_now(self) -> str | None:
        """Do what `request` does, in this thread."""
        blocked = None
        for active in self._guards:
            said = _ask(active, active.guard.check_request, self._messages)
            blocked = self._note(active, f"{active.name}.request", said) or blocked
        return blocked

    async def answer(self, text: str, finish_reason: str) -> str | None:
        """Let every guard see the whole answer; return why it must not pass, or None."""
        if len(text) + self.size > INLINE and self._guards:
            return await asyncio.to_thread(self.answer_now, text, finish_reason)
        return self.answer_now(text, finish_reason)

    def answer_now(self, text: str, finish_reason: str) -> str | None:
        """Do what `answer` does, in this thread."""
        blocked, reason = None, finish_reason or "stop"
        for active in self._guards:
            said = _ask(active, active.guard.check_response, text, reason, self._messages)
            blocked = self._note(active, active.name, said) or blocked
        return blocked

    def piece(self, text: str, *, begun: bool) -> str | None:
        """Return why a part of an answer must not be sent, or None. Nothing is noted.

        `begun`: the part is its beginning.
        """
        reason = BEGUN if begun else WITHIN
        for active in self._guards:
            if active.action == "block" and active.hold > 0:
                said = _ask(active, active.guard.check_response, text, reason, self._messages)
                worst = _worst(_objections(active, said))
                if worst is not None:
                    return worst.why
        return None

    def _note(self, active: ActiveGuard, name: str, said: Said) -> str | None:
        """Keep what a guard says; return why it blocks, or None."""
        objections = _objections(active, said) if said is not None else ()
        if not objections:
            self.notes[name] = {"ok": True, "why": ""}
            return None
        why = "; ".join(one.why for one in objections)
        self.notes[name] = {"ok": False, "why": why, "checks": [one.check for one in objections]}
        for one in objections:
            self._flagged(f"{active.name}.{one.check}" if one.check else active.name, one.action)
        worst = _worst(objections)
        return worst.why if worst else None


def _ask(active: ActiveGuard, look: Callable[..., Said], *seen: Any) -> Said:
    """Return what a guard says; one that fails objects."""
    try:
        said = look(*seen)
        return said if said is None or isinstance(said, str) else list(said)
    except Exception:
        _log.exception("the guard %s failed", active.name)
        return [Objection("failed", f"the guard {active.name} failed", active.action)]


def _objections(active: ActiveGuard, said: Said) -> list[Objection]:
    if said is None:
        return []
    if isinstance(said, str):
        return [Objection("", said, active.action)]
    return [one for one in said if one.action != "off"]


def _worst(objections: Sequence[Objection]) -> Objection | None:
    return next((one for one in objections if one.action == "block"), None)


class Holdback:
    """What may be sent of an answer while it is being written.

    Text leaves only after the guards have seen it and so many more characters that nothing they
    block can begin in it: finds of up to the guards' `hold` characters are never sent in part.
    """

    def __init__(self, guards: Sequence[ActiveGuard], checking: Checking) -> None:
        holds = [active.hold for active in guards if active.action == "block"]
        self.whole = WHOLE in holds
        self._keep = 0 if self.whole else max(holds, default=0)
        self._head = max((active.head for active in guards if active.action == "block"), default=0)
        self._checking = checking
        self._text = ""
        self._sent = 0  # characters
        self._seen = 0  # characters when the guards looked last

    @property
    def holds(self) -> bool:
        """Whether anything is kept back at all."""
        return self.whole or self._keep > 0

    def push(self, piece: str) -> tuple[str, str | None]:
        """Take a piece; return the text that may be sent now, and why no more may follow."""
        if not self.holds:
            return piece, None
        self._text += piece
        ready = self._ready()
        if ready <= self._sent:
            return "", None
        self._seen = len(self._text)
        start = self._text.rfind(" ", 0, max(0, self._sent - _CONTEXT)) + 1
        why = self._checking.piece(self._text[start:], begun=start == 0)
        if why is not None:
            return "", why
        text, self._sent = self._text[self._sent : ready], ready
        return text, None

    def rest(self) -> str:
        """Return what is unsent, once the guards have seen the whole answer."""
        text, self._sent = self._text[self._sent :], len(self._text)
        return text

    def _ready(self) -> int:
        """Return how many characters may leave if the guards agree."""
        end = len(self._text)
        if self.whole or end < self._head or end - self._seen < _STEP:
            return 0
        ready = end - self._keep
        if ready <= 0 or not self._text[:ready].strip():
            return 0
        return ready
