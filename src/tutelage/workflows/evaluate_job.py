"""One evaluation on its way: whose, where its journal lies, and how long each part took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.core.artifact import Artifact
from tutelage.workflows.context import Context

SEED = 0  # of every resampling; the answers themselves are greedy


@dataclass
class Job:
    """`folder` holds the journal; `adapter` is None where only the base model is measured."""

    ctx: Context
    dataset: Artifact
    adapter: Artifact | None
    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Keep how long the block took under `name`, in seconds."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)
