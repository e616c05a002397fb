"""How much memory the engine's process takes, and that it gives back what it no longer needs.

Loading a model takes and frees much. glibc would keep that for later, in a heap for each thread,
and take it again from another one: a further release would seem to cost twice its size.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

import psutil

# mallopt(3): one heap for all threads, little of it in reserve, large blocks on their own. What a
# token takes for a moment (0.6 MB of odds) is to come from the reserve: the system clears every
# page it hands out, which took 0.3 ms a token.
_MB = 1024 * 1024
_SETTINGS = {-8: 1, -2: 0, -1: 2 * _MB, -3: _MB}


def keep_one_heap() -> None:
    """Let the process give freed memory back to the system; call it before threads are made.

    Does nothing where there is no glibc.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            for setting, value in _SETTINGS.items():
                library.mallopt(setting, value)


def give_back_memory() -> None:
    """Return freed memory to the system where glibc would keep it. Does nothing elsewhere."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def memory_mb() -> tuple[float, float]:
    """Return this process's proportional and resident memory in MB (10^6 bytes).

    Where the system does not tell the proportional share, it is the resident one.
    """
    memory = psutil.Process().memory_full_info()
    rss = memory.rss / 1e6
    return round(getattr(memory, "pss", memory.rss) / 1e6, 1), round(rss, 1)
