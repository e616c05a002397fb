"""What scores prove, however often they are looked at: bounds on a mean, and a mean that fell.

Everything here is a bet on numbers in 0..1 whose mean, given the past, is at least m. Staking the
share b (0 < b < 1) of a capital on "it is less" multiplies the capital, with y = 1 - x and
u = 1 - m, by

    1 + b (y / u - 1) >= 1 - b > 0,

which has expectation <= 1, so the capital ever reaches 1/a with probability <= a (Ville 1939). A
mixture over several b is such a capital too (betting on bounded means: Waudby-Smith & Ramdas 2024,
JRSS-B 86(1), sections 4 and 5).

**The bounds.** The capital grows with m, so the upper bound is the m at which it reaches 2/a, and
the lower bound the same of 1 - x. At one time it rests on how often each value was seen, not on the
order. It holds at all times together: a confidence sequence.

**The fall.** A mean may fall late, when a capital that bet from the start has long been lost. So
one bettor starts before each score, the j-th with the part w_j = 1 / (j (j + 1)) of the capital;
the parts sum to 1, and what has not started yet lies idle. This is a mixture of e-processes over
the time of the change ("E-detectors", Shin, Ramdas & Rinaldo 2024, New England Journal of
Statistics in Data Science 2(2)), with weights that sum to 1 rather than 1 each: so it bounds the
risk of a false alarm ever, and a fall after n scores costs about 2 log n in evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BETS = (0.01, 0.03, 0.07, 0.15, 0.3, 0.5, 0.75, 0.95)  # shares of the capital at stake
_STEPS = 50  # halvings of the interval that holds a bound
_SMALLEST = 1e-9  # of u, so that a level of 1 can be asked for

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bounds:
    """A mean of `n` scores, and the bounds that hold at all times; 0 and 1 without scores."""

    mean: float | None
    low: float
    high: float
    n: int


def mean_bounds(counts: Mapping[float, int], alpha: float) -> Bounds:
    """Return the mean of scores in 0..1, given as value → how often, and its bounds.

    The risk that the true mean is ever outside is at most `alpha`, half of it on each side.
    """
    values = np.array(list(counts), dtype=np.float64)
    often = np.array(list(counts.values()), dtype=np.float64)
    n = int(often.sum())
    if n == 0:
        return Bounds(None, 0.0, 1.0, 0)
    goal = math.log(2 / alpha)
    low = _lower(values, often, goal)
    high = 1 - _lower(1 - values, often, goal)
    return Bounds(float(values @ often) / n, low, high, n)


def lower_bound(counts: Mapping[float, int], alpha: float) -> float:
    """Return the lower bound alone, at the whole risk `alpha`."""
    if not counts:
        return 0.0
    values = np.array(list(counts), dtype=np.float64)
    return _lower(values, np.array(list(counts.values()), dtype=np.float64), math.log(1 / alpha))


def _lower(values: Floats, often: Floats, goal: float) -> float:
    """Return the m under which the mean can't be: there the capital against it reaches `goal`."""
    low, high = 0.0, float(values @ often / often.sum())  # at the mean no bet gains
    bets = np.array(BETS)[:, None]
    for _ in range(_STEPS):
        m = (low + high) / 2
        if m <= 0:
            break
        gains = np.log1p(bets * (values / m - 1)) @ often  # (B,)
        if np.logaddexp.reduce(gains) - math.log(len(BETS)) >= goal:
            low = m
        else:
            high = m
    return low


def fall_capital(scores: ArrayLike, level: float) -> Floats:
    """Return the log capital against "no score's mean is under `level`" after each; (N,) -> (N,).

    It ever reaches log(1/a) with probability <= a where the mean of every score, given those
    before it, is at least `level`. It never falls when `level` rises.
    """
    x = np.asarray(scores, dtype=np.float64)
    if len(x) == 0 or level <= 0:
        return np.zeros(len(x))
    bets = np.array(BETS)[:, None]
    u = max(1 - level, _SMALLEST)
    gained = np.cumsum(np.log1p(bets * ((1 - x) / u - 1)), axis=1)  # (B, N)
    before = np.concatenate((np.zeros((len(BETS), 1)), gained[:, :-1]), axis=1)
    place = np.arange(1, len(x) + 1, dtype=np.float64)
    begun = np.logaddexp.accumulate(-np.log(place * (place + 1)) - before, axis=1)
    bettors = np.logaddexp.reduce(gained + begun, axis=0) - math.log(len(BETS))
    return np.asarray(np.logaddexp(bettors, -np.log(place + 1)))
