"""One requirement of the gate: its outcome, the sentence that shows it, the figures behind it.

What is required is decided by gate.py and the gate_*.py beside it; nothing is measured here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["pass", "fail", "not_enough_evidence"]


@dataclass(frozen=True)
class Criterion:
    """One requirement with its outcome, the sentence that shows it, and the figures behind it."""

    name: str
    outcome: Outcome
    sentence: str
    figures: dict[str, Any] = field(default_factory=dict)


def within(low: float, high: float, limit: float) -> Outcome:
    """Return whether an interval of a loss lies within `limit`, beyond it, or on both sides."""
    if high <= limit:
        return "pass"
    return "fail" if low > limit else "not_enough_evidence"


def percent(ratio: float, digits: int = 0) -> str:
    """Return 0.714 as 71 %."""
    return f"{ratio * 100:.{digits}f} %"


def points(ratio: float, digits: int = 0) -> str:
    """Return 0.53 as +53, with a true minus sign."""
    text = f"{ratio * 100:+.{digits}f}".replace("-", "−")
    return text[1:] if float(text.replace("−", "-")) == 0 else text


def figures_of(d: Any) -> dict[str, Any]:
    """Return a paired difference as plain JSON."""
    return {
        "estimate": d.estimate, "low": d.low, "high": d.high, "n": d.n, "clusters": d.clusters,
        "p": d.p, "detectable": d.detectable if math.isfinite(d.detectable) else None,
    }  # fmt: skip
