"""What the stages of the loop give: artifacts with their folders, and the newest of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.artifact import Artifact
from tutelage.core.errors import DataError
from tutelage.workflows.context import Context, last_output

if TYPE_CHECKING:
    from tutelage.core.example import Example, SplitName


@dataclass(frozen=True)
class Output:
    """One stage's result: its artifact, and the folder it lies in."""

    artifact: Artifact
    path: Path

    @property
    def meta(self) -> Mapping[str, Any]:
        """The figures of the stage."""
        return self.artifact.meta


class Dataset(Output):
    """A frozen dataset version."""

    def rows(self, split: SplitName) -> list[Example]:
        """Return the examples of a split."""
        from tutelage.data.version import load_version

        return load_version(self.path).rows(split)


class Evaluation(Output):
    """Scores of the candidates and what they prove."""

    @property
    def verdict(self) -> str:
        """pass, fail or not_enough_evidence."""
        return str(self.meta["verdict"])

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"


def require_output(ctx: Context, stage: str) -> Artifact:
    """Return what `stage` last gave; raise DataError naming the command that makes it."""
    artifact = last_output(ctx, stage)
    if artifact is None or not ctx.path_of(artifact).exists():
        command = {"curate": "tutelage data split", "train": "tutelage train"}.get(
            stage, f"tutelage {stage}"
        )
        raise DataError(
            f"the stage {stage!r} has not run yet",
            where=str(ctx.workspace.root),
            fix=f"Run `{command}` or `tutelage run` first",
        )
    return artifact
