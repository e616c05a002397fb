"""Watch how much memory the work takes: this process and its children, shared pages once."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

_EVERY_SECONDS = 0.5


def tree_mb(process: psutil.Process | None = None) -> float:
    """Return the memory of a process and its children in MB (proportional where the OS says)."""
    root = process or psutil.Process()
    total = 0.0
    for member in [root, *root.children(recursive=True)]:
        try:
            info = member.memory_full_info()
            total += getattr(info, "pss", info.rss) / 1e6
        except psutil.Error:
            continue
    return total


class PeakMemory:
    """A context manager: `peak_mb` is the highest sample seen while it was open."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="peak-memory")

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_mb = max(self.peak_mb, tree_mb())
            if self._stop.wait(_EVERY_SECONDS):
                return
