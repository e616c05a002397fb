"""The protocol of guards: checks of requests and answers, each off, flag or block by config.

A guard is built once a release from GuardContext and says in one sentence what does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tutelage.core import plugins
from tutelage.core.example import Message
from tutelage.core.output import OutputFormat

Action = Literal["off", "flag", "block"]


@dataclass(frozen=True)
class GuardContext:
    """What a guard may know about the release it watches."""

    output: OutputFormat = OutputFormat()
    json_schema: Mapping[str, Any] | None = None
    specials: tuple[str, ...] = ()  # the tokenizer's control tokens


class Guard(Protocol):
    """Checks one request and one answer; returns why it does not hold, or None."""

    def check_request(self, messages: Sequence[Message]) -> str | None: ...

    def check_response(self, text: str, finish_reason: str) -> str | None: ...


@dataclass(frozen=True)
class ActiveGuard:
    """A guard that is on, and what happens when it does not hold."""

    name: str
    action: Action
    guard: Guard


def build_guards(actions: Mapping[str, Action], context: GuardContext) -> tuple[ActiveGuard, ...]:
    """Return the guards that are not off, in the order of the config.

    Raises ConfigError for an unknown name.
    """
    return tuple(
        ActiveGuard(name, action, plugins.load("guards", name)(context))
        for name, action in actions.items()
        if action != "off"
    )
