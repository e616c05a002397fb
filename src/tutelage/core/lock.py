"""One process at a time, on one machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tutelage.core.errors import Conflict
from tutelage.core.workspace import disk_errors


@contextlib.contextmanager
def sole(file: Path, taken: Conflict) -> Iterator[None]:
    """Hold `file`, made if it isn't there; raise `taken` if another process holds it.

    The hold goes with the process, however it ends. On Windows nothing is held.
    """
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(handle, taken)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, taken: Conflict) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise taken from error
