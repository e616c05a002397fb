"""What both arms of a rollout did, as arrays: requests, and scores of their answers.

Values only; evidence.py reads them from the store, rollback.py judges them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Sample(NamedTuple):
    """One finished request of an arm."""

    at: float  # seconds since any fixed point, when it ended; orders the two arms
    latency_ms: float
    failed: bool = False  # the server's fault: status 5xx, timeout, empty answer
    flagged: bool = False  # an output check did not hold
    step: int = 0  # the rollout's step; -1: before the rollout, only used to place thresholds


@dataclass(frozen=True)
class ArmLog:
    """What one arm did over the whole rollout, in order of time. All arrays have length N.

    `memory` holds the latest samples of each kind of memory of the engine, ratios 0..1: in the
    canary's log those since it was loaded, in the baseline's those from before. `fault` names
    something that needs no statistics (engine crash, hash mismatch, golden prompts failed);
    `problem` says why the log itself can't be trusted.
    """

    at: NDArray[np.float64]  # seconds
    latency_ms: NDArray[np.float64]
    failed: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    step: NDArray[np.int64]
    memory: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    fault: str | None = None
    problem: str | None = None
    # when the engine refused requests (400), once a user; shape (M,), not among the N
    refused: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @classmethod
    def of(
        cls,
        samples: Iterable[Sample],
        *,
        memory: Mapping[str, tuple[float, ...]] | None = None,
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
            dict(memory or {}),
            fault,
            problem,
        )

    def __len__(self) -> int:
        return len(self.at)

    @property
    def live(self) -> NDArray[np.bool_]:
        """Which requests came since the rollout began; shape (N,)."""
        return self.step >= 0


@dataclass(frozen=True)
class Scores:
    """Scores of live answers by one metric, in the order in which they arrived; shapes (N,).

    The order is that of arrival, not of the answers, so that what a look has seen never changes.
    """

    canary: NDArray[np.bool_]
    value: NDArray[np.float64]  # 0..1, more is better

    @classmethod
    def of(cls, rows: Iterable[tuple[bool, float]]) -> Scores:
        """Return the scores of (is canary, value) pairs."""
        pairs = list(rows)
        return cls(
            np.array([canary for canary, _ in pairs], dtype=np.bool_),
            np.array([value for _, value in pairs], dtype=np.float64),
        )


ScoreLog = Mapping[str, Scores]  # metric -> its scores, in the order of each metric's first


@dataclass(frozen=True)
class Merged:
    """Both arms' requests since the rollout began, in order of time; arrays of length N."""

    canary: NDArray[np.bool_]
    latency: NDArray[np.float64]  # ms, the canary's divided by the limit
    failed: NDArray[np.bool_]
    flagged: NDArray[np.bool_]

    @classmethod
    def of(cls, baseline: ArmLog, canary: ArmLog, limit: float) -> Merged:
        """Return the requests of both, the canary's latencies divided by `limit`."""
        a, b = baseline.live, canary.live
        order = np.argsort(np.concatenate((baseline.at[a], canary.at[b])), kind="stable")
        is_canary = np.concatenate((np.zeros(a.sum(), bool), np.ones(b.sum(), bool)))
        latency = np.concatenate((baseline.latency_ms[a], canary.latency_ms[b] / limit))
        failed = np.concatenate((baseline.failed[a], canary.failed[b]))
        flagged = np.concatenate((baseline.flagged[a], canary.flagged[b]))
        return cls(is_canary[order], latency[order], failed[order], flagged[order])

    def only(self, keep: NDArray[np.bool_]) -> Merged:
        """Return the requests that `keep` marks."""
        return Merged(self.canary[keep], self.latency[keep], self.failed[keep], self.flagged[keep])


def failures(baseline: ArmLog, canary: ArmLog) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which requests failed or were refused, and which are the canary's, by time."""
    at, bad, ours = [], [], []
    for arm, is_canary in ((baseline, False), (canary, True)):
        failed = arm.failed[arm.live]
        at += [arm.at[arm.live], arm.refused]
        bad += [failed, np.ones(len(arm.refused), bool)]
        ours.append(np.full(len(failed) + len(arm.refused), is_canary))
    order = np.argsort(np.concatenate(at), kind="stable")
    return np.concatenate(bad)[order], np.concatenate(ours)[order]
