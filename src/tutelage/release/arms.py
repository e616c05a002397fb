"""What both arms of a rollout did, as arrays: requests, and scores of their answers.

Values only; evidence.py reads them from the store, rollback.py judges them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.release.sequential import NOBODY, cut

_PRIOR = 2.0  # requests at everybody's pace that a user starts with


class Sample(NamedTuple):
    """One finished request of an arm."""

    at: float  # seconds since any fixed point, when it ended; orders the two arms
    latency_ms: float
    failed: bool = False  # the server's fault: status 5xx, timeout, empty answer
    flagged: bool = False  # an output check did not hold
    step: int = 0  # the rollout's step; -1: before the rollout, only used to place thresholds
    user: int = NOBODY


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
    user: NDArray[np.int64] | None = None  # who asked, or NOBODY; None: nobody names a user

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
            user=np.array([r.user for r in rows], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.at)

    @property
    def live(self) -> NDArray[np.bool_]:
        """Which requests came since the rollout began; shape (N,)."""
        return self.step >= 0

    @property
    def users(self) -> NDArray[np.int64]:
        """Who asked each request; shape (N,)."""
        return np.full(len(self), NOBODY) if self.user is None else self.user


@dataclass(frozen=True)
class Scores:
    """Scores of live answers by one metric, in the order in which they arrived; shapes (N,).

    The order is that of arrival, not of the answers, so that what a look has seen never changes.
    """

    canary: NDArray[np.bool_]
    value: NDArray[np.float64]  # 0..1, more is better
    user: NDArray[np.int64] | None = None  # whose request it was, or NOBODY

    @classmethod
    def of(cls, rows: Iterable[tuple[bool, float, int]]) -> Scores:
        """Return the scores of (is canary, value, user)."""
        found = list(rows)
        return cls(
            np.array([canary for canary, _, _ in found], dtype=np.bool_),
            np.array([value for _, value, _ in found], dtype=np.float64),
            np.array([user for _, _, user in found], dtype=np.int64),
        )


ScoreLog = Mapping[str, Scores]  # metric -> its scores, in the order of each metric's first


@dataclass(frozen=True)
class Merged:
    """Both arms' requests since the rollout began, in order of time; arrays of length N."""

    canary: NDArray[np.bool_]
    latency: NDArray[np.float64]  # ms, the canary's divided by the limit
    failed: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    user: NDArray[np.int64]

    @classmethod
    def of(cls, baseline: ArmLog, canary: ArmLog, limit: float) -> Merged:
        """Return the requests of both, the canary's latencies divided by `limit`."""
        a, b = baseline.live, canary.live
        is_canary = np.concatenate((np.zeros(a.sum(), bool), np.ones(b.sum(), bool)))
        return cls(
            is_canary,
            np.concatenate((baseline.latency_ms[a], canary.latency_ms[b] / limit)),
            np.concatenate((baseline.failed[a], canary.failed[b])),
            np.concatenate((baseline.flagged[a], canary.flagged[b])),
            np.concatenate((baseline.users[a], canary.users[b])),
        ).only(np.argsort(np.concatenate((baseline.at[a], canary.at[b])), kind="stable"))

    def only(self, keep: NDArray[Any]) -> Merged:
        """Return the requests that `keep` marks, or those at its places."""
        return Merged(*(getattr(self, of.name)[keep] for of in fields(self)))

    def in_blocks(self) -> tuple[Merged, NDArray[np.int64]]:
        """Return the requests that the tests look at and where their blocks end; (B,)."""
        kept, ends = cut(self.canary, self.user)
        return self.only(kept), ends


def at_own_pace(baseline: ArmLog, canary: ArmLog) -> tuple[ArmLog, ArmLog]:
    """Return both with latencies divided by how slow each user's were before the rollout.

    Who always asks for long answers is on one arm with all of them. What is known of users from
    before the rollout can't depend on the arm, so it may be taken out: the geometric mean of
    their latencies over everybody's, drawn to 1 where there are few.
    """
    old = ~baseline.live & ~baseline.failed & (baseline.users != NOBODY)
    if not old.any():
        return baseline, canary
    user, latency = baseline.users[old], np.log(np.maximum(baseline.latency_ms[old], 1e-3))
    size = 1 + max(int(arm.users.max(initial=0)) for arm in (baseline, canary))
    times = np.bincount(user, minlength=size)
    above = np.bincount(user, latency - latency.mean(), minlength=size)
    pace = np.append(np.exp(above / (times + _PRIOR)), 1.0)  # the last is that of NOBODY, -1

    def paced(arm: ArmLog) -> ArmLog:
        return replace(arm, latency_ms=arm.latency_ms / pace[arm.users])

    return paced(baseline), paced(canary)


def failures(
    baseline: ArmLog, canary: ArmLog
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Return which requests failed or were refused, which are the canary's, and whose they are.

    By time. A refusal is told once for each user, so it stands for itself.
    """
    at, bad, ours, users = [], [], [], []
    for arm, is_canary in ((baseline, False), (canary, True)):
        failed, refused = arm.failed[arm.live], len(arm.refused)
        at += [arm.at[arm.live], arm.refused]
        bad += [failed, np.ones(refused, bool)]
        ours.append(np.full(len(failed) + refused, is_canary))
        users += [arm.users[arm.live], np.full(refused, NOBODY)]
    order = np.argsort(np.concatenate(at), kind="stable")
    return np.concatenate(bad)[order], np.concatenate(ours)[order], np.concatenate(users)[order]
