"""The protocol of guards: checks of requests and answers, each off, flag or block by config.

A guard is built once a release from GuardContext. It sees texts only: it changes nothing, and what
happens when it objects is decided by its action (serving/guards/checking.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from tutelage.core import plugins
from tutelage.core.config_guards import ACTIONS, Action, LiveGuards
from tutelage.core.example import Message
from tutelage.core.output import OutputFormat
from tutelage.serving.guards.window import Window

WHOLE = -1  # characters kept back while streaming: all of them
BEGUN, WITHIN = "", "…"  # finish reasons of an unfinished answer: its beginning, a later part


@dataclass(frozen=True)
class Surroundings:
    """What the project knows of a release besides the release itself."""

    root: Path = Path()  # the project's folder; files in options count from it
    window: Window | None = None  # the golden rows' statistics


@dataclass(frozen=True)
class GuardContext:
    """What a guard may know about the release it watches.

    `options` are the guard's own from tutelage.yaml: a section for the built-in ones, else a
    mapping. `window` holds the golden rows' statistics, where there are enough. Files in options
    count from `root`.
    """

    output: OutputFormat = OutputFormat()
    json_schema: Mapping[str, Any] | None = None
    specials: tuple[str, ...] = ()  # the tokenizer's control tokens
    prompt: str = ""  # the release's
    window: Window | None = None
    root: Path = Path()  # the project's folder
    options: Any = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Objection:
    """One check that does not hold. `why` is one clause and quotes nobody's personal data."""

    check: str
    why: str
    action: Action


Said = str | Sequence[Objection] | None


class Guard(Protocol):
    """Checks one request and its answer; returns why they don't hold, or None.

    A clause takes the guard's own action; objections bring theirs. Both methods are called on the
    gateway's loop: they must be quick and ask nobody. A class may say what it needs of a stream
    with the attributes `hold` and `head` (ActiveGuard), and its strongest action with `action`.
    """

    def check_request(self, messages: Sequence[Message]) -> Said:
        """Look at what the client sent, before the engine is asked."""
        ...

    def check_response(self, text: str, finish_reason: str, messages: Sequence[Message]) -> Said:
        """Look at an answer to `messages`.

        While it streams, `finish_reason` is BEGUN and the text what there is of it, then WITHIN
        and the text a part of it. Only a guard with a `hold` is asked so.
        """
        ...


def whole(finish_reason: str) -> bool:
    """Return whether an answer with this finish reason is finished."""
    return finish_reason not in (BEGUN, WITHIN)


@dataclass(frozen=True)
class ActiveGuard:
    """A guard that is on.

    `action` is the strongest thing it can do. `hold`: characters of an answer that are kept back
    while it streams, so that nothing it blocks is sent; 0 none, WHOLE all. `head`: how many at
    the beginning are kept until so many are there.
    """

    name: str
    action: Action
    guard: Guard
    hold: int = 0
    head: int = 0


def strongest(actions: Sequence[Action]) -> Action:
    """Return the strongest of some actions, off for none."""
    return max(actions, key=ACTIONS.index, default="off")


def build_guards(guards: LiveGuards, context: GuardContext) -> tuple[ActiveGuard, ...]:
    """Return the guards that are not off: the layers, then plug-ins in the order of the config.

    Raises ConfigError for an unknown name, and for options that a guard can't use.
    """
    return tuple(_built(guards, context))


def _built(guards: LiveGuards, context: GuardContext) -> Iterator[ActiveGuard]:
    for name, action, options in guards.layers():
        made = plugins.load("guards", name)(replace(context, options=options))
        action = getattr(made, "action", action)
        if action != "off":
            waits = WHOLE if action == "block" else 0
            hold, head = getattr(made, "hold", waits), getattr(made, "head", 0)
            yield ActiveGuard(name, action, made, hold, head)
