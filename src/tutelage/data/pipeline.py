"""The order of curation is a list of steps; a step keeps rows and gives a reason for each loss.

It does not know what the steps do, and it checks that nothing vanished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tutelage.core.example import Example
from tutelage.data.findings import Finding


@dataclass(frozen=True)
class Dropped:
    """One row that left: why, and the row that caused it (an example id), if one did."""

    example: Example
    finding_id: str
    reason: str
    cause: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form kept in dropped.jsonl and quarantine.jsonl."""
        file, _, line = self.example.origin.source.rpartition(":")
        return {
            "finding": self.finding_id,
            "reason": self.reason,
            "file": file or self.example.origin.source,
            "line": int(line) if line.isdigit() else None,
            "id": self.example.id,
            "cause": self.cause,
            "row": self.example.model_dump(mode="json", exclude_defaults=True),
        }


@dataclass
class StepResult:
    """What a step gave. `quarantined` rows need a person, `dropped` rows don't."""

    kept: list[Example]
    dropped: list[Dropped] = field(default_factory=list)
    quarantined: list[Dropped] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


class Step(Protocol):
    """One stage of curation."""

    @property
    def name(self) -> str:
        """The word people read: clean, schema, exact."""
        ...

    def run(self, rows: Sequence[Example]) -> StepResult:
        """Return what is kept and, with reasons, what is not."""
        ...


@dataclass
class PipelineResult:
    """The rows at the end, everything that left, everything found, and one line a step."""

    kept: list[Example]
    dropped: list[Dropped] = field(default_factory=list)
    quarantined: list[Dropped] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)


OnStep = Callable[[dict[str, Any]], None]


def run_steps(
    rows: Sequence[Example],
    steps: Sequence[Step],
    on_step: OnStep | None = None,
    on_begin: Callable[[str], None] | None = None,
) -> PipelineResult:
    """Run the steps in order; `on_step` gets {step, kept, dropped, quarantined, reasons}.

    `on_begin` gets the name of each step before it runs.
    """
    result = PipelineResult(list(rows))
    for step in steps:
        if on_begin is not None:
            on_begin(step.name)
        before = len(result.kept)
        done = step.run(result.kept)
        lost = len(done.dropped) + len(done.quarantined)
        if len(done.kept) + lost != before:
            raise RuntimeError(f"step {step.name} lost {before - len(done.kept) - lost} rows")
        result.kept = done.kept
        result.dropped += done.dropped
        result.quarantined += done.quarantined
        result.findings += done.findings
        reasons = Counter(item.finding_id for item in (*done.dropped, *done.quarantined))
        entry = {
            "step": step.name,
            "kept": len(done.kept),
            "dropped": len(done.dropped),
            "quarantined": len(done.quarantined),
            "reasons": dict(reasons),
        }
        result.steps.append(entry)
        if on_step is not None:
            on_step(entry)
    return result
