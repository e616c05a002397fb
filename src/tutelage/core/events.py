"""What a stage tells the world while it works: one small type, any number of listeners.

A stage calls `emit(Event(...))`; the CLI draws a bar, a job keeps a file, a test keeps a list.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

EVENTS_FILE = "TUTELAGE_EVENTS"  # names the file that a job's process keeps its events in
_QUIET_S = 0.2  # between two lines of progress in a file

EventKind = Literal["start", "progress", "note", "warning", "metric", "done"]


@dataclass(frozen=True)
class Event:
    """One thing that happened in `stage`; of no stage ("") what may happen beside any.

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


class EventFile:
    """A listener that appends each event to a file as a line of JSON, with the time it came.

    Progress is kept a few times a second and at its end; everything else always.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = 0.0

    def __call__(self, event: Event) -> None:
        """Append one event."""
        if event.kind == "progress" and event.done != event.total:
            now = time.monotonic()
            if now - self._told < _QUIET_S:
                return
            self._told = now
        line = json.dumps({"at": time.time(), **asdict(event)}, ensure_ascii=False, default=str)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def read_events(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Return the whole lines of an event file from a byte on, and where to read on."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read()
    except OSError:
        return [], offset
    end = data.rfind(b"\n") + 1
    found = []
    for line in data[:end].splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # half a line of a process that was killed, then a line of the next one
    return found, offset + end
