"""The difference of two arms by one metric, clustered by user, with its interval at every look.

A metric's mean in an arm is the sum of its values over their number, R = sum Y_u / sum N_u over
users u, because an answer is what a person meets. Users are what the router drew, so the variance
is theirs: what R would have been without each of them in turn (the jackknife, which for equal
users is the delta method of Deng, Knoblich & Lu 2018, KDD, arXiv 1803.06336, and which a user with
many answers can't hide from by pulling R to himself):

    var(R) = (n - 1) / n * sum_u ((Y_u - R N_u) / (sum_v N_v - N_u))^2.

Where so few users gave so many of the answers that they count for less than `FEW` equal ones,
(sum N)^2 / sum N^2, there is no interval: no variance can be told from them.

For values in 0..1 the sum has two more users, one whose value was 0 and one with 1 (as Agresti &
Caffo 2000 add to each sample), so that an arm in which nothing happened yet is not sure of itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.feedback.ab.bounds import e_value, radius, tuned_for

BURN_IN = 20  # users of each arm before there is an interval
FEW = 10.0  # equal users, below which an arm has no interval
HORIZON = 1_000  # users for which intervals are sharpest, unless told

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Values:
    """One metric's values in order of time; arrays of length N."""

    user: Ints  # 0..U-1, by first request
    candidate: Bools  # the user's arm
    value: Floats
    at: Floats  # seconds since the test began

    def __len__(self) -> int:
        return len(self.value)

    def only(self, keep: NDArray[np.bool_]) -> Values:
        """Return the values that `keep` marks; shape (N,)."""
        return Values(self.user[keep], self.candidate[keep], self.value[keep], self.at[keep])


@dataclass(frozen=True)
class Arm:
    """One arm by one metric: the mean, its variance, how many values of how many users.

    `worth` is how many users with equally many values would be as many.
    """

    mean: float
    variance: float
    values: int
    users: int
    worth: float = 0.0


@dataclass(frozen=True)
class Scale:
    """What is fixed when enough users of each arm have come: when, and the bound's r.

    `since` is the number of values up to which there is no interval.
    """

    since: int
    r: float


@dataclass(frozen=True)
class Effect:
    """Candidate minus stable. `low` and `high` are None until there is an interval."""

    stable: Arm
    candidate: Arm
    difference: float
    low: float | None
    high: float | None
    information: float
    r: float
    e: float

    @property
    def decided(self) -> int:
        """1 if the candidate's mean is higher, -1 if lower, 0 if that is open."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    def within(self, margin: float) -> bool:
        """Return whether the whole interval lies inside plus and minus `margin`."""
        return self.low is not None and self.high is not None and (
            -margin < self.low and self.high < margin
        )  # fmt: skip


def arm_of(values: Values, *, bounded: bool) -> Arm:
    """Return the mean and its variance of values of one arm; NaN without values."""
    if not len(values):
        return Arm(math.nan, math.inf, 0, 0)
    _, codes = np.unique(values.user, return_inverse=True)
    sums, counts = np.bincount(codes, values.value), np.bincount(codes)
    users, total = len(counts), len(values)
    mean = float(sums.sum() / total)
    worth = total**2 / float((counts.astype(np.float64) ** 2).sum())
    if users < 2:
        return Arm(mean, math.inf, total, users, worth)
    squares = float((((sums - mean * counts) / (total - counts)) ** 2).sum())
    if bounded:
        squares += (mean**2 + (1 - mean) ** 2) / total**2
        users += 2
    return Arm(mean, (users - 1) / users * squares, total, len(counts), worth)


@dataclass(frozen=True)
class Design:
    """What is settled before the first value: the candidate's share, the error, the horizon."""

    split: float  # 0..1
    alpha: float
    horizon: int = HORIZON


def scale_of(values: Values, order: Ints, design: Design, *, bounded: bool) -> Scale | None:
    """Return what is fixed once `BURN_IN` users of each arm have a value; None before.

    `order` holds how many users of all had come at each value, shape (N,). From the first values
    of these users comes the spread of one, and how many of `horizon` users will have any.
    """
    _, first = np.unique(values.user, return_index=True)
    first = np.sort(first)
    arms = values.candidate[first]
    enough = (np.cumsum(arms) >= BURN_IN) & (np.cumsum(~arms) >= BURN_IN)
    if not enough.any():
        return None
    last = int(np.argmax(enough))
    since = int(first[last]) + 1
    share = min(1.0, (last + 1) / max(1, int(order[since - 1])))
    spread = _spread(values.value[first[: last + 1]], arms[: last + 1], bounded=bounded)
    drawn = design.horizon * share * design.split * (1 - design.split)
    return Scale(since, tuned_for(drawn / spread**2, design.alpha))


def _spread(value: Floats, candidate: Bools, *, bounded: bool) -> float:
    """Return the standard deviation of one value inside the arms, never 0."""
    parts = [value[candidate], value[~candidate]]
    squares = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
    count, mean = len(value), float(value.mean())
    if bounded:
        squares, count = squares + mean**2 + (1 - mean) ** 2, count + 2
    return max(float(np.sqrt(squares / count)), 0.01 * abs(mean), 1e-9)


def effect_of(values: Values, scale: Scale | None, alpha: float, *, bounded: bool) -> Effect:
    """Return the difference of the arms so far, with its interval once there is a scale."""
    stable = arm_of(values.only(~values.candidate), bounded=bounded)
    ours = arm_of(values.only(values.candidate), bounded=bounded)
    difference, variance = ours.mean - stable.mean, ours.variance + stable.variance
    few = min(stable.worth, ours.worth) < FEW
    if scale is None or few or len(values) < scale.since or not 0 < variance < math.inf:
        return Effect(stable, ours, difference, None, None, 0.0, 0.0, 1.0)
    information = 1 / variance
    half = radius(information, scale.r, alpha)
    e = e_value(difference, information, scale.r)
    low, high = difference - half, difference + half
    if bounded:
        low, high = max(-1.0, low), min(1.0, high)
    return Effect(stable, ours, difference, low, high, information, scale.r, e)
