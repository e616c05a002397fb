"""Decide from the log whether a candidate may go on: sequential tests that may always be looked at.

No clock and no IO: the caller brings what both arms saw, `judge` says pass, fail, inconclusive,
no_data or collector_error, and why. The statistics are in sequential.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.core.config import Limits

VerdictName = Literal["pass", "fail", "inconclusive", "no_data", "collector_error"]


class Sample(NamedTuple):
    """One finished request of an arm."""

    at: float  # seconds since any fixed point; orders the two arms
    latency_ms: float
    failed: bool = False  # the server's fault: status 5xx, timeout, empty answer
    flagged: bool = False  # an output check did not hold
    step: int = 0  # the rollout's step; -1: before the rollout, only used to place thresholds


@dataclass(frozen=True)
class ArmLog:
    """What one arm did over the whole rollout, in order of time. All arrays have length N.

    `memory` holds the latest samples of the engine's memory use, a ratio 0..1; `fault` names
    something that needs no statistics (engine crash, hash mismatch, golden prompts failed);
    `problem` says why the log itself can't be trusted.
    """

    at: NDArray[np.float64]  # seconds
    latency_ms: NDArray[np.float64]
    failed: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    step: NDArray[np.int64]
    memory: tuple[float, ...] = ()
    fault: str | None = None
    problem: str | None = None

    @classmethod
    def of(
        cls,
        samples: Iterable[Sample],
        *,
        memory: Iterable[float] = (),
        fault: str | None = None,
        problem: str | None = None,
    ) -> ArmLog:
        """Return the log of `samples`, sorted by time."""
        rows = sorted(samples, key=lambda sample: sample.at)
        return cls(
            np.array([r.at for r in rows], dtype=np.float64),
            np.array([r.latency_ms for r in rows], dtype=np.float64),
            np.array([r.failed for r in rows], dtype=np.bool_),
            np.array([r.flagged for r in rows], dtype=np.bool_),
            np.array([r.step for r in rows], dtype=np.int64),
            tuple(memory),
            fault,
            problem,
        )

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True)
class StepVerdict:
    """What the evidence says now. `evidence` is plain data for the journal and the page."""

    verdict: VerdictName
    reasons: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)


def judge(baseline: ArmLog, canary: ArmLog, limits: Limits) -> StepVerdict:
    """Return the verdict on everything both arms have done since the rollout began."""
    raise NotImplementedError
