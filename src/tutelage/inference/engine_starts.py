"""Lets the slots of llama.cpp servers share the start of a prompt, computed once.

The start that many requests have in common (the system message) is computed once, its keys and
values are kept in a file, and read into other slots: a copy takes milliseconds where computing it
takes seconds. Keys and values depend on the adapter, so a start belongs to one release.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tutelage.core.errors import TutelageError

LEAST = 256  # characters, some 60 tokens: a shorter start is computed faster than it is looked for
_KEPT = 8  # files; one holds the keys and values of a prompt's start
_WASTED = 4  # starts nobody else asked for: from then on only a start seen before is kept
_SEEN = 256
_WAIT_S = 120.0  # for another request to compute the same start


class Moves(Protocol):
    """What can be done with one slot; all may raise TutelageError."""

    def compute(self, text: str) -> bool:
        """Compute a text in the slot; False if that was stopped."""
        ...

    def save(self, name: str) -> None:
        """Write what the slot holds to a file."""
        ...

    def restore(self, name: str) -> None:
        """Let the slot hold what is in a file."""
        ...


@dataclass
class _Start:
    """A prompt's start on disk, once `done` is set and `kept` is true."""

    name: str
    done: threading.Event = field(default_factory=threading.Event)
    kept: bool = False
    uses: int = 0


class SharedStarts:
    """The starts of prompts that are kept in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._starts: OrderedDict[tuple[str, str], _Start] = OrderedDict()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._wasted = 0
        self._lock = threading.Lock()

    def bring(self, release: str, start: str, slot: Moves) -> None:
        """Let `slot` hold `start` if that is worth it; one request computes it, others wait.

        What does not work is left to the request itself, which computes its whole prompt.
        """
        key = (release, start)
        entry, mine = self._find(key)
        if entry is None:
            return
        with contextlib.suppress(TutelageError):
            if mine:
                try:
                    if slot.compute(start):
                        slot.save(entry.name)
                        entry.kept = True
                finally:
                    self._settle(key, entry)
            elif entry.done.wait(_WAIT_S) and entry.kept:
                slot.restore(entry.name)

    def forget(self, release: str) -> None:
        """Delete the starts of a release that is gone."""
        with self._lock:
            for key in [key for key in self._starts if key[0] == release]:
                self._delete(self._starts.pop(key))

    def _find(self, key: tuple[str, str]) -> tuple[_Start | None, bool]:
        """Return the entry of a start, and whether it is the caller's to fill."""
        with self._lock:
            entry = self._starts.get(key)
            if entry is not None:
                self._starts.move_to_end(key)
                entry.uses += 1
                self._wasted = 0
                return entry, False
            whole = "\0".join(key).encode(errors="surrogatepass")
            digest = hashlib.sha256(whole).hexdigest()[:32]
            seen = digest in self._seen
            self._seen[digest] = None
            if len(self._seen) > _SEEN:
                self._seen.popitem(last=False)
            if self._wasted >= _WASTED and not seen:
                return None, False
            entry = self._starts[key] = _Start(f"{digest}.bin")
            self._make_room()
            return entry, True

    def _make_room(self) -> None:
        for key in list(self._starts):
            if len(self._starts) <= _KEPT:
                return
            if self._starts[key].done.is_set():
                old = self._starts.pop(key)
                self._wasted += old.uses == 0
                self._delete(old)

    def _settle(self, key: tuple[str, str], entry: _Start) -> None:
        with self._lock:
            if not entry.kept and self._starts.get(key) is entry:
                del self._starts[key]
        entry.done.set()

    def _delete(self, entry: _Start) -> None:
        with contextlib.suppress(OSError):
            (self.folder / entry.name).unlink(missing_ok=True)
