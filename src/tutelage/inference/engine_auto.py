"""llama.cpp for what it can serve, and the transformers backend, once it is needed, for the rest.

A whole model, an adapter that is no plain LoRA, a classification head or a cloze answer from
transformers: the base model then lies in memory twice. Nothing is answered here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from tutelage.inference.engine_base import Backend, Seat
from tutelage.inference.tuned import read_tuned


class AutoBackend:
    """Opens each release where it can be served."""

    name = "llamacpp"

    def __init__(self, fast: Backend, make_other: Callable[[], Backend]) -> None:
        """`make_other` is called at the first release that `fast` can't serve."""
        self._fast, self._make_other = fast, make_other
        self._other: Backend | None = None
        self._lock = threading.Lock()

    def open(self, adapter: Path | None) -> Seat:
        """Return a seat. Raises EnvironmentProblem if it needs torch and there is none."""
        if adapter is None or read_tuned(adapter).is_plain_lora:
            return self._fast.open(adapter)
        with self._lock:
            if self._other is None:
                self._other = self._make_other()
        return self._other.open(adapter)

    def end(self) -> None:
        """Free everything."""
        with self._lock:
            other, self._other = self._other, None
        for backend in (self._fast, other):
            if backend is not None:
                backend.end()
