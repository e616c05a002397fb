"""Intervals that hold at every look: a confidence sequence for an estimate with a standard error.

An estimate D of a difference with the variance v has the information I = 1/v, and D I behaves like
a Brownian motion in I (the canonical form of sequential analysis). Robbins' normal mixture bounds
such a path at all times at once: with probability 1 - alpha, for every I,

    |D - difference| <= sqrt((I + r) log((I + r) / (r alpha^2))) / I

(the two-sided normal mixture; Howard, Ramdas, McAuliffe & Sekhon 2021, Annals of Statistics 49(2)).
With an estimated variance it is an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha,
Kennedy & Ramdas, arXiv 2103.06476): exact in the limit of many users, for data of any law with
finite variance. r is free but fixed early; it says at which information
the interval is sharpest.

Users who come back. Then D is clustered by user, and D I no longer moves in independent steps:
what a user did before comes again. If a user is like himself (his answers correlate, never
negatively), corr(D_s, D_t) is at least sqrt(I_s / I_t), what the Brownian motion has; by Slepian's
inequality a Gaussian path with the same variance and larger correlations crosses an upper bound
at most as often. So each side of the interval keeps its error.
"""

from __future__ import annotations

import math
from statistics import NormalDist

Z80 = 0.8416  # the 80th percentile of the normal law
_MOST = 1e15


def tuned_for(information: float, alpha: float) -> float:
    """Return the r with which the interval is sharpest at `information`.

    It is the approximate minimiser of the radius in r (Waudby-Smith et al., arXiv 2103.06476).
    """
    return information / (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1)


def radius(information: float, r: float, alpha: float) -> float:
    """Return half the width of the interval; infinite without information."""
    if information <= 0 or r <= 0:
        return math.inf
    total = information + r
    return math.sqrt(total * (math.log(total / r) - 2 * math.log(alpha))) / information


def e_value(difference: float, information: float, r: float) -> float:
    """Return the mixture's e-value against "there is no difference"; at least 1/alpha is proof."""
    if information <= 0 or r <= 0:
        return 1.0
    total = information + r
    exponent = (difference * information) ** 2 / (2 * total) + 0.5 * math.log(r / total)
    return math.exp(min(exponent, 690.0))


def information_for(difference: float, r: float, alpha: float) -> float:
    """Return the information that shows `difference` in 80 % of tests; infinite if it is 0.

    There the radius and 0.84 standard errors together are as large as the difference.
    """
    goal = abs(difference)
    if goal <= 0 or r <= 0:
        return math.inf
    low, high = 0.0, 1.0 / goal**2
    while radius(high, r, alpha) + Z80 / math.sqrt(high) > goal:
        low, high = high, high * 2
        if high > _MOST * max(1.0, r):
            return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        if radius(middle, r, alpha) + Z80 / math.sqrt(middle) > goal:
            low = middle
        else:
            high = middle
    return high


def fixed_information(difference: float, alpha: float) -> float:
    """Return the information that shows `difference` in 80 % of tests that are looked at once."""
    if difference == 0:
        return math.inf
    z = NormalDist().inv_cdf(1 - alpha / 2)
    return ((z + Z80) / difference) ** 2
