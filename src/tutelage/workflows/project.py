"""The Python API: `tutelage.open(DIR)` gives a Project whose methods are the CLI's commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tutelage.core.artifact import Artifact
from tutelage.core.errors import DataError
from tutelage.core.events import Emit, silent
from tutelage.workflows.context import open_context
from tutelage.workflows.desks import Desks
from tutelage.workflows.outputs import Dataset, Evaluation, Output, require_output

if TYPE_CHECKING:
    from tutelage.evaluation.gate import Verdict
    from tutelage.workflows.data.augment import Augmented
    from tutelage.workflows.run import RunSummary


Kind = TypeVar("Kind", bound=Output)


class Project(Desks):
    """One opened project directory. Its desks are properties: `project.data`, `project.prompts`."""

    def augment(
        self, method: str = "paraphrase", count: int | None = None, texts: Path | None = None
    ) -> Augmented:
        """Let the teacher write training rows; `curate` takes them up."""
        from tutelage.workflows.data.augment import augment

        return augment(self.context, method, count, texts)

    def curate(self) -> Dataset:
        """Import, validate, clean, deduplicate and split; return the dataset version."""
        from tutelage.workflows.curate import curate

        return self._give(Dataset, curate(self.context).artifact)

    def train(self, dataset: Dataset | None = None, *, yes: bool = False) -> Output:
        """Train as planned (resuming if a run was cut off); return what was tuned.

        `yes` allows the upload that train.method: hosted needs.
        """
        from tutelage.workflows.training.train import train

        return self._give(Output, train(self.context, self._dataset(dataset), yes=yes).artifact)

    def evaluate(
        self, candidate: Output | str | Path | None = None, *, against: Sequence[str] | None = None
    ) -> Evaluation:
        """Compare a candidate with base, few-shot and the stable release on the test split.

        It is what `train` gave, a release, or a name as the command takes; unset: the newest
        adapter. `against` names who must be beaten, in place of evaluate.against.
        """
        from tutelage.workflows.evaluation.evaluate import evaluate_named

        names = () if candidate is None else (_spec(candidate),)
        outcome = evaluate_named(self.context, names, against=against)[0]
        return self._give(Evaluation, outcome.artifact)

    def compare(self, a: Output | str, b: Output | str) -> dict[str, Any]:
        """Return what sets two evaluated candidates apart, metric by metric and row by row."""
        from tutelage.workflows.evaluation.compare import compare

        return compare(self.context, _spec(a), _spec(b))

    def gate(
        self, evaluation: Evaluation | str, *, against: Sequence[str] | None = None
    ) -> Verdict:
        """Judge an evaluation by the settings as they are now; no model is asked."""
        from tutelage.workflows.evaluation.gate import find_evaluation, gate

        found = find_evaluation(self.context, _spec(evaluation))
        return gate(self.context, found, against=against)

    def release(self, adapter: Output | None = None, *, force: bool = False) -> Output:
        """Make the release of an evaluated adapter; refused unless its verdict is pass."""
        from tutelage.workflows.evaluation.gate import newest_evaluation
        from tutelage.workflows.release.release import release

        if adapter is not None:
            _require(adapter, Output, "train")
        tuned = adapter.artifact if adapter is not None else self._last("train")
        evaluation = newest_evaluation(self.context, tuned)
        outcome = release(self.context, self._last("curate"), tuned, evaluation, force=force)
        return self._give(Output, outcome.artifact)

    def run(self, *, force: bool = False) -> RunSummary:
        """Do all of the above, skipping what is unchanged."""
        from tutelage.workflows.run import run

        return run(self.context, force=force)

    def close(self) -> None:
        """Close the store."""
        self.context.store.close()

    def _give(self, kind: type[Kind], artifact: Artifact) -> Kind:
        return kind(artifact, self.context.path_of(artifact))

    def _dataset(self, dataset: Dataset | None) -> Artifact:
        if dataset is None:
            return self._last("curate")
        _require(dataset, Dataset, "curate")
        return dataset.artifact

    def _last(self, stage: str) -> Artifact:
        return require_output(self.context, stage)


def _require(given: object, kind: type[Output], maker: str) -> None:
    """Raise DataError unless it is what the method `maker` gave."""
    if not isinstance(given, kind):
        raise DataError(
            f"{given!r:.60} is not what project.{maker}() gave",
            fix=f"Give that, or leave it out to take the newest of `{maker}`",
        )


def _spec(named: Output | str | Path) -> str:
    """Return the name by which commands know it."""
    return named.artifact.hash if isinstance(named, Output) else str(named)


def open_project(directory: str | Path, *, emit: Emit = silent) -> Project:
    """Open the project in `directory`.

    Raises ConfigError if tutelage.yaml is missing or wrong.
    """
    return Project(open_context(Path(directory), emit))
