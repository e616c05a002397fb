"""What a stage tells the world while it works: one small type, any number of listeners.

A stage calls `emit(Event(...))`; the CLI draws a bar, the store keeps a row, a test keeps a list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

EventKind = Literal["start", "progress", "note", "warning", "metric", "done"]


@dataclass(frozen=True)
class Event:
    """One thing that happened in `stage`.

    `done` and `total` count units (steps, rows) of a progress event; `data` carries metrics.
    """

    stage: str
    kind: EventKind
    message: str = ""
    done: float | None = None
    total: float | None = None
    data: dict[str, Any] = field(default_factory=dict)


Emit = Callable[[Event], None]


def silent(event: Event) -> None:
    """Drop the event: the default listener of the Python API."""


def fan_out(*listeners: Emit) -> Emit:
    """Return one listener that tells them all, in order."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell
