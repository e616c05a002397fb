"""Scores of live answers: a drop that is proven, and a drop that is excluded, at any moment.

Scores in 0..1 of both arms, in order of arrival, are cut into blocks as in sequential.py, one
score of each user in a block. A block with n_b and n_c scores of both arms gives
d = mean(baseline) - mean(canary), in -1..1, of which h = n_b n_c / (n_b + n_c) is the information,
and a weight v = min(1, h / 3), which knows the arms but no score. For a bet 0 <= b < 1,

    1 + b v d                    has expectation <= 1 if the canary is no worse,
    1 + b v (m - d) / (1 + m)    has expectation <= 1 if the canary is worse by m or more,

so their products are capitals that reach 1/a with probability <= a (betting on bounded means:
Waudby-Smith & Ramdas 2024, JRSS-B 86(1), with several bets at once as in sequential.py). The
first proves a drop. The second excludes one of m or more: non-inferiority that may be looked at
all the time. Neither assumes a law, and both hold while the mix of requests changes, because a
block compares answers of the same time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.release import sequential as seq
from tutelage.release.arms import Scores

BETS = (0.05, 0.15, 0.35, 0.6, 0.95)
CANARY_PER_BLOCK = 4  # aimed at, on average
FULL = 3.0  # h from which a block counts whole: 4 of the canary beside 12
_EFFICIENCY = 0.7  # information that is used, by simulation: blocks differ, bets are few
_LEAST_SD = 0.1  # of a score, so that a run of equal scores claims no power

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreBlocks:
    """The blocks of one metric that hold both arms: arrays of length B."""

    difference: Floats  # mean(baseline) - mean(canary)
    weight: Floats  # 0..1
    canary: NDArray[np.int64]  # canary scores
    baseline: NDArray[np.int64]
    sd: float  # of one score, both arms pooled

    @classmethod
    def of(cls, scores: Scores) -> ScoreBlocks:
        """Return the blocks of scores in order of arrival."""
        kept, ends = seq.cut(scores.canary, scores.user, CANARY_PER_BLOCK)
        canary, value = scores.canary[kept], scores.value[kept]
        sizes = np.diff(np.concatenate(([0], ends)))
        of_canary = seq.block_sums(canary, ends)
        others = sizes - of_canary
        both = (of_canary > 0) & (others > 0)
        total = seq.block_sums(value, ends)[both]
        ours = seq.block_sums(np.where(canary, value, 0.0), ends)[both]
        of_canary, others = of_canary[both], others[both]
        difference = (total - ours) / others - ours / of_canary
        weight = np.minimum(1.0, of_canary * others / (of_canary + others) / FULL)
        sd = float(scores.value.std()) if len(scores.value) else 0.5
        return cls(difference, weight, of_canary, others, max(_LEAST_SD, sd))

    def __len__(self) -> int:
        return len(self.difference)

    def worse(self) -> Floats:
        """Return the log capital against "the canary is no worse"; shape (B,)."""
        return self._capital(self.difference)

    def within(self, margin: float) -> Floats:
        """Return the log capital against "the canary is worse by `margin` or more"; shape (B,)."""
        return self._capital((margin - self.difference) / (1 + margin))

    @property
    def information(self) -> float:
        """The sum of h: a difference of means has the variance sd^2 over it."""
        return float((self.canary * self.baseline / (self.canary + self.baseline)).sum())

    def _capital(self, gain: Floats) -> Floats:
        bets = np.array(BETS)[:, None]
        return seq.log_capital(np.log1p(bets * self.weight * gain))


def information_needed(drop: float, sd: float, log_threshold: float) -> float:
    """Return the information that finds a difference of `drop` in 80 % of runs.

    The capital of the best bet grows by x^2 / 2 with x = drop sqrt(information) / sd, its
    standard deviation is x; `log_threshold` counts the price of betting on several at once, and
    the bets and blocks as they are lose a share of it.
    """
    return float((_needed(log_threshold) * sd / drop) ** 2 / _EFFICIENCY)


def drop_seen(information: float, sd: float, log_threshold: float) -> float:
    """Return the smallest drop that so much information finds in 80 % of runs, at most 1."""
    if information <= 0:
        return 1.0
    return min(1.0, _needed(log_threshold) * sd / math.sqrt(information * _EFFICIENCY))


def _needed(log_threshold: float) -> float:
    z = seq.Z80
    goal = log_threshold + np.log(len(BETS) / (1 - seq.IDLE))
    return float(z + np.sqrt(z * z + 2 * goal))
