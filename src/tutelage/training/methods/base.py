"""What a training method is made of: an objective (what is learned) and a tuning (what changes).

Method is the plug-in of `tutelage.methods`; Objective and Tuning are its two halves, so that any
objective can train an adapter or the whole model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tutelage.core.events import Emit, Event
from tutelage.training.encode import Coverage
from tutelage.training.job import TrainingJob
from tutelage.training.loop import STAGE, Item, Step
from tutelage.training.prefix_tree import Row
from tutelage.training.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """Items ready to train on and to look at, and the report about all rows that came in.

    An item is a frozen dataclass: its fields are part of what a run is named by.
    """

    train: Sequence[Item]
    validation: Sequence[Item]
    coverage: Coverage


def tell_coverage(coverage: Coverage, text: str, emit: Emit) -> None:
    """Say what became of the rows before the first step; a warning if any lost something."""
    lost = bool(coverage.rejected or coverage.shortened)
    emit(Event(STAGE, "warning" if lost else "note", text, data=coverage.as_dict()))


class Objective(ABC):
    """What is learned: examples to items, items to a loss. Subclass and override."""

    def load(self, job: TrainingJob) -> Any:
        """Return the model that the job starts from, a causal language model here.

        In fp32, or as the method's tuning wants it (4-bit, for instance).
        """
        from tutelage.inference.transformers import load_model
        from tutelage.training.tunings import load_options

        return load_model(job.model, dtype="float32", **load_options(job.recipe))

    @abstractmethod
    def prepare(self, job: TrainingJob, tokenizer: Any, emit: Emit) -> Prepared:
        """Return the job's rows as items. Raises DataError if nothing is labelled."""

    def rows(self, items: Sequence[Any]) -> list[Row]:
        """Return the token rows that a pass over `items` computes: what the planner counts."""
        return list(items)

    @abstractmethod
    def step(
        self, model: Any, items: Sequence[Any], recipe: Recipe, emit: Emit
    ) -> tuple[Step, dict[str, Any]]:
        """Return the function that runs a step's items, and the report on prefix sharing."""

    def describe(self, job: TrainingJob, model: Any) -> dict[str, Any]:
        """Return what inference must know besides the weights (inference/tuned.py); often {}.

        `model` is the trained one, whole in this process, with its best weights.
        """
        return {}


class Tuning(Protocol):
    """Which weights change."""

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Return the model to train: its parameters with `requires_grad` are what changes."""
        ...

    def save(self, model: Any, directory: Path, base_name: str) -> None:
        """Write what was trained into `directory`, whole files only, without machine paths."""
        ...


class Method(Protocol):
    """A plug-in of `tutelage.methods`."""

    def objective(self, recipe: Recipe) -> Objective:
        """Return what is learned."""
        ...

    def tuning(self, recipe: Recipe) -> Tuning:
        """Return which weights change."""
        ...


class AnyTuning:
    """Half a method: train.tune says whether an adapter or all weights are trained."""

    def tuning(self, recipe: Recipe) -> Tuning:
        """Return which weights change."""
        from tutelage.training.tunings import tuning_of

        return tuning_of(recipe)
