"""Training from Python, besides `project.train`: plans, the search, files out, a service's jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.core.artifact import Artifact
from tutelage.workflows.context import Context

if TYPE_CHECKING:
    from tutelage.training.planner import Plan
    from tutelage.workflows.release.export import Exported
    from tutelage.workflows.training.hosted_jobs import HostedDesk
    from tutelage.workflows.training.search import SearchResult


class TrainingDesk:
    """`project.training`: what `tutelage train --plan`, `search`, `hosted` and `export` do.

    `dataset` is what curation last gave.
    """

    def __init__(self, context: Context, dataset: Artifact) -> None:
        self._ctx, self._dataset = context, dataset

    def plan(self, *, probe: bool = True) -> Plan:
        """Return what training would do, and why; with `probe` one real step is timed."""
        from tutelage.workflows.training.stages import planned

        return planned(self._ctx, self._dataset, probe=probe)[1]

    def plans(self) -> list[Plan]:
        """Return the plans of the stages of train.before, in their order."""
        from tutelage.workflows.training.stages import plans

        return plans(self._ctx, self._dataset)

    def search(
        self,
        over: Sequence[str] | None = None,
        *,
        trials: int = 12,
        minutes: float | None = None,
        seeds: int = 3,
    ) -> SearchResult:
        """Search the settings on the validation rows, the learning rate first."""
        from tutelage.workflows.training.search import Limits, search

        return search(self._ctx, self._dataset, Limits(trials, minutes, seeds), over)

    def export(
        self,
        what: str | None = None,
        format: str = "adapter",
        out: Path | None = None,
        *,
        dtype: str = "auto",
    ) -> Exported:
        """Write a release or an adapter as files that others load, held to the same tokens."""
        from tutelage.workflows.release.export import export

        return export(self._ctx, what, format, out, dtype=dtype)

    @property
    def hosted(self) -> HostedDesk:
        """Jobs at a service that speaks OpenAI's fine-tuning API."""
        from tutelage.workflows.training.hosted_jobs import HostedDesk

        return HostedDesk(self._ctx)
