"""Who may use which slot of a llama.cpp server when several releases share it.

llama.cpp computes one adapter at a time: in each step the busy slot with the lowest number decides
which, and slots with another adapter wait. So numbers are priorities, and this hands them out
fairly: the release that was served least comes first and gets a number in front of the others, and
nobody is put in front of one that was served less (start-time fair queueing, Goyal et al. 1996, by
tokens). Within a release a request goes where most of its prompt lies already.

Texts are compared, not tokens: llama.cpp compares tokens itself, so a wrong guess costs time only.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

_LITTLE = 32  # characters that prompts may share by chance, or by a default system message
_LOOK_S = 0.1  # how often one that waits looks whether its client has left


@dataclass
class _Slot:
    """A slot: whose keys and values it holds, of which text, and when it was last used."""

    index: int
    release: str | None = None
    text: str = ""
    used: int = 0
    busy: bool = False


@dataclass(frozen=True)
class Taken:
    """A slot, how many characters of the prompt it holds, and whether it was this release's."""

    index: int
    held: int
    own: bool


@dataclass(frozen=True)
class _Ticket:
    order: int
    release: str
    prompt: str
    shared: int


class Roster:
    """The slots of one server."""

    def __init__(self, count: int) -> None:
        self._slots = [_Slot(index) for index in range(count)]
        self._served: defaultdict[str, float] = defaultdict(float)  # tokens
        self._waiting: list[_Ticket] = []
        self._clock = itertools.count(1)
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiting)

    def take(
        self, release: str, prompt: str, shared: int, gone: Callable[[], bool] = lambda: False
    ) -> Taken | None:
        """Return a slot for `prompt`, whose first `shared` characters others have too.

        Waits for one; None if `gone` says that nobody wants the answer any more.
        """
        with self._changed:
            self._join(release)
            ticket = _Ticket(next(self._clock), release, prompt, shared)
            self._waiting.append(ticket)
            try:
                while True:
                    slot = self._choose(ticket) if self._first() is ticket else None
                    if slot is not None:
                        return self._occupy(slot, ticket)
                    self._changed.wait(_LOOK_S)
                    if gone():
                        return None
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def give(self, taken: Taken, text: str, cost: float) -> None:
        """Say that a slot is free again, what it holds now, and how many tokens that cost."""
        with self._changed:
            slot = self._slots[taken.index]
            slot.text, slot.busy, slot.used = text, False, next(self._clock)
            self._served[slot.release or ""] += cost
            self._changed.notify_all()

    def _join(self, release: str) -> None:
        """Let a release that was idle start level with the others: idling saves nothing up."""
        active = {slot.release or "" for slot in self._slots if slot.busy}
        active |= {ticket.release for ticket in self._waiting}
        if active and release not in active:
            least = min(self._served[other] for other in active)
            self._served[release] = max(self._served[release], least)

    def _first(self) -> _Ticket:
        return min(self._waiting, key=lambda ticket: (self._served[ticket.release], ticket.order))

    def _choose(self, ticket: _Ticket) -> _Slot | None:
        mine = self._served[ticket.release]
        others = [slot for slot in self._slots if slot.busy and slot.release != ticket.release]
        behind = [slot.index for slot in others if self._served[slot.release or ""] < mine]
        free = [s for s in self._slots if not s.busy and s.index > max(behind, default=-1)]
        if others and not behind:
            first = min(slot.index for slot in others)
            free = [slot for slot in free if slot.index < first] or free
        if not free:
            return None
        best = max(free, key=lambda slot: (_held(slot, ticket), -slot.used))
        if _held(best, ticket) > ticket.shared + _LITTLE:
            return best  # a conversation goes on where it was
        return min(free, key=lambda slot: slot.used)

    def _occupy(self, slot: _Slot, ticket: _Ticket) -> Taken:
        taken = Taken(slot.index, _held(slot, ticket), slot.release == ticket.release)
        slot.busy, slot.release = True, ticket.release
        return taken


def _held(slot: _Slot, ticket: _Ticket) -> int:
    return common(slot.text, ticket.prompt) if slot.release == ticket.release else 0


def common(one: str, other: str) -> int:
    """Return how many characters two texts begin with in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
