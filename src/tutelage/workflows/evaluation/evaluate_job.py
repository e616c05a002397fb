"""One evaluation on its way: whose, against whom, where its journal lies, how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.core.artifact import Artifact
from tutelage.core.example import Example
from tutelage.inference.models import ModelSource
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.evaluate_candidates import Entrant

SEED = 0  # of every resampling; the answers themselves are greedy


@dataclass(frozen=True)
class GoldenFile:
    """A golden set that a criterion names: its rows, and the hash of its file."""

    rows: tuple[Example, ...]
    digest: str


@dataclass
class Job:
    """`folder` holds the candidate's journal, `shared` that of base and rivals.

    `entrant` is None where only the base model is measured.
    """

    ctx: Context
    dataset: Artifact
    entrant: Entrant | None
    folder: Path
    shared: Path
    source: ModelSource | None = None  # the project's base model; None: a service's
    rivals: tuple[Entrant, ...] = ()
    against: tuple[str, ...] = ()  # who must be beaten, by their names among the candidates
    golden: Mapping[str, GoldenFile] = field(default_factory=dict)
    key: str | None = None  # the candidate's (Entrant.key)
    asked: str = ""  # the hash of all that the answers depend on
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def own_base(self) -> bool:
        """Whether the candidate was tuned from the project's base model."""
        return self.entrant is None or self.entrant.source == self.source

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add how long the block took to what `name` took before, in seconds."""
        started = time.monotonic()
        yield
        took = time.monotonic() - started
        self.seconds[name] = round(self.seconds.get(name, 0.0) + took, 2)
