"""What the gate looks at and what it says: the evidence of one candidate, and the verdict.

Nothing is decided here: gate.py does that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tutelage.core.errors import EXIT_DONE, EXIT_NO, EXIT_NOT_ENOUGH_EVIDENCE
from tutelage.evaluation.candidates import BASE, FEW_SHOT, STABLE
from tutelage.evaluation.criterion import Criterion, Outcome
from tutelage.evaluation.forgetting import Forgetting
from tutelage.evaluation.golden import GoldenSet
from tutelage.evaluation.scoring import Comparison, Scored
from tutelage.evaluation.usage import Slowdown

EXIT_CODES: dict[Outcome, int] = {
    "pass": EXIT_DONE,
    "fail": EXIT_NO,
    "not_enough_evidence": EXIT_NOT_ENOUGH_EVIDENCE,
}
_SHORT = {BASE: "base", FEW_SHOT: "few-shot", STABLE: "stable"}


@dataclass(frozen=True)
class Verdict:
    """The decision over all criteria: one fail fails, one open question leaves it open."""

    outcome: Outcome
    sentence: str
    criteria: tuple[Criterion, ...]

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 not enough evidence."""
        return EXIT_CODES[self.outcome]


@dataclass(frozen=True)
class Evidence:
    """All that the gate looks at. `latency` is tuned over base.

    `clusters` maps the test rows' ids, in order, to what belongs together; empty: each its own.
    """

    primary: str
    confidence: float
    scored: Mapping[str, Scored]
    comparisons: Mapping[str, Comparison]
    forgetting: Forgetting | None = None
    latency: Slowdown | None = None
    must_pass: tuple[str, ...] = ()
    must_fail: tuple[str, ...] = ()  # the must-pass rows that failed
    clusters: Mapping[str, str] = field(default_factory=dict)
    golden: Mapping[str, GoldenSet] = field(default_factory=dict)  # by the file's name
    untrusted: Mapping[str, str] = field(default_factory=dict)  # metric → why it may not gate
    against: tuple[str, ...] = ()  # candidates that must be beaten; empty: base and few-shot
    seed: int = 0

    @property
    def rows(self) -> Mapping[str, str]:
        """The clusters by example id, in order."""
        if self.clusters:
            return self.clusters
        return {item: item for item in next(iter(self.scored.values())).rows}

    def called(self, name: str) -> str:
        """Return what a candidate is called in a sentence."""
        return _SHORT.get(name, name)
