"""The note in .tutelage by which other commands find the gateway that runs.

Several gateways may serve one project: the newest is noted, and one that runs still after it has
ended is noted again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tutelage.core.workspace import atomic_write


@contextmanager
def noted(home: Path, url: str) -> Iterator[None]:
    """Note this gateway while the block runs."""
    note = home / "serving.json"
    before = _read(note)
    own = json.dumps({"pid": os.getpid(), "url": url}).encode()
    atomic_write(note, own)
    try:
        yield
    finally:
        if _read(note) == own:
            if _runs(before):
                atomic_write(note, before)
            else:
                note.unlink(missing_ok=True)


def _read(note: Path) -> bytes:
    try:
        return note.read_bytes()
    except OSError:
        return b""


def _runs(noted_before: bytes) -> bool:
    """Return whether a note is that of another process that lives."""
    try:
        pid = int(json.loads(noted_before)["pid"])
    except (ValueError, KeyError, TypeError):
        return False
    return pid != os.getpid() and psutil.pid_exists(pid)
