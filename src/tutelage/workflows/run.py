"""`tutelage run`: curate, plan, train, evaluate, release; what is unchanged is skipped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tutelage.workflows.context import Context, StageOutcome
from tutelage.workflows.memory import PeakMemory


@dataclass(frozen=True)
class RunSummary:
    """What one pass of the loop gave. `release` is None when the verdict did not allow one."""

    dataset: StageOutcome
    adapter: StageOutcome
    evaluation: StageOutcome
    release: StageOutcome | None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float = 0.0

    @property
    def verdict(self) -> str:
        """pass, fail or not_enough_evidence."""
        return str(self.evaluation.artifact.meta["verdict"])

    def as_dict(self) -> dict[str, Any]:
        """Return the summary for `--json`."""
        meta = self.evaluation.artifact.meta
        return {
            "verdict": self.verdict,
            "primary": meta["primary"],
            "forgetting": meta["forgetting"],
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "peak_memory_mb": round(self.peak_memory_mb),
            "release": self.release.artifact.meta.get("name") if self.release else None,
            "report": meta.get("report"),
            "dataset": self.dataset.artifact.short,
            "adapter": self.adapter.artifact.short,
            "skipped": [
                outcome.name
                for outcome in (self.dataset, self.adapter, self.evaluation, self.release)
                if outcome is not None and outcome.skipped
            ],
        }


def run(ctx: Context, *, force: bool = False) -> RunSummary:
    """Run the loop up to a release. `force` releases even without a passing verdict.

    Raises ConfigError for a scorer's wrong option before anything is trained.
    """
    from tutelage.evaluation.task import check_scorers
    from tutelage.workflows.curate import curate
    from tutelage.workflows.evaluation.evaluate import evaluate
    from tutelage.workflows.release.release import release
    from tutelage.workflows.training.train import train

    check_scorers(ctx.config, ctx.workspace.root)
    with PeakMemory() as memory:
        dataset = curate(ctx)
        adapter = train(ctx, dataset.artifact)
        evaluation = evaluate(ctx, dataset.artifact, adapter.artifact)
        made: StageOutcome | None = None
        if evaluation.artifact.meta["verdict"] == "pass" or force:
            made = release(
                ctx, dataset.artifact, adapter.artifact, evaluation.artifact, force=force
            )
    outcomes = [dataset, adapter, evaluation, *([made] if made else [])]
    return RunSummary(
        dataset,
        adapter,
        evaluation,
        made,
        {outcome.name: outcome.seconds for outcome in outcomes},
        memory.peak_mb,
    )
