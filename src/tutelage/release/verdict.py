"""What the evidence of a rollout says at one moment: one of five words, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

VerdictName = Literal["pass", "fail", "inconclusive", "no_data", "collector_error"]


@dataclass(frozen=True)
class StepVerdict:
    """What the evidence says now. `evidence` is plain data for the journal and the page.

    `withheld` says why the candidate may go on but not yet get all traffic; empty: it may.
    """

    verdict: VerdictName
    reasons: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    withheld: str = ""
