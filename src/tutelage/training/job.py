"""What a training run is asked to do, and what it gives back: plain records, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.inference.models import ModelSource
from tutelage.training.recipe import Recipe
from tutelage.training.tracker import NullTracker, Tracker


@dataclass(frozen=True)
class TrainingJob:
    """What to train, on what, how, and where its files go.

    `start` is the folder of an earlier run whose weights this one goes on from. `output` says what
    labels there are and how one is written.
    """

    model: ModelSource
    train: list[Example]
    validation: list[Example]
    prompt: str
    recipe: Recipe
    run_dir: Path
    tracker: Tracker = field(default_factory=NullTracker)
    output: OutputFormat = OutputFormat()
    start: Path | None = None


@dataclass(frozen=True)
class TrainResult:
    """What came out. `adapter_dir` holds the best weights, those of `best_step`.

    `trainable` counts trained parameters, `seconds` is of this process alone, `prefix` says
    whether prefixes were shared, why not, and how many tokens that saved, `interpolation` which
    share of the change was kept, and why.
    """

    adapter_dir: Path
    best_step: int
    steps: int
    stopped: str
    history: list[dict[str, Any]]
    seconds: float
    peak_memory_mb: float
    trainable: int
    coverage: dict[str, Any]
    prefix: dict[str, Any]
    interpolation: dict[str, Any]
