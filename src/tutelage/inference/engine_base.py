"""What the engine's HTTP app asks of a backend: open a release, answer a request, let go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tutelage.inference.base import Usage
from tutelage.inference.engine_request import ChatRequest


@dataclass(frozen=True)
class Piece:
    """Some text of an answer, or parts of tool calls.

    `logprobs` are OpenAI's entries, if they were asked for; `tool_calls` its deltas of calls.
    """

    text: str
    logprobs: tuple[dict[str, Any], ...] = ()
    tool_calls: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Ending:
    """Why an answer ended ("stop", "length" or "tool_calls") and what it cost."""

    finish_reason: str
    usage: Usage


Tell = Callable[[Piece], bool]  # returns True when nobody wants the rest


class Seat(Protocol):
    """One loaded release. `slots` requests may run at once; the app queues the others."""

    slots: int

    def answer(self, request: ChatRequest, tell: Tell) -> Ending:
        """Write the answer piece by piece; blocks. Raise RequestProblem if it can't be answered."""
        ...

    def close(self) -> None:
        """Free the release's memory. No request is running."""
        ...


class Backend(Protocol):
    """Opens releases of one base model."""

    name: str

    def open(self, adapter: Path | None) -> Seat:
        """Load a release: the base model, or the base with the adapter in this folder."""
        ...

    def end(self) -> None:
        """Free everything at once. No request is running, and none will come."""
        ...
