"""How far two distributions are apart, and how far they may be apart by chance alone.

The population stability index is the symmetrised Kullback-Leibler divergence of two histograms.
It knows no names of features and judges nothing but numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NOTABLE = 0.2  # the usual reading: under 0.1 stable, from 0.2 on much
_CHANCE = 0.001  # how often chance alone may exceed `by_chance`
_FLOOR = 1e-3  # least share of a bin: an empty one would make the index infinite

Shares = NDArray[np.float64]


def stability(expected: Shares, found: Shares) -> float:
    """Return the population stability index of two histograms of shares, sum((f-e) ln(f/e))."""
    one, two = np.maximum(expected, _FLOOR), np.maximum(found, _FLOOR)
    return float(((two - one) * np.log(two / one)).sum())


def by_chance(bins: int, one: int, two: int) -> float:
    """Return the index that two samples of one distribution exceed once in a thousand times.

    With n and m rows and B bins the index is about (1/n + 1/m) times a chi-squared variable with
    B - 1 degrees of freedom (Yurdakul and Naranjo, "Statistical properties of the population
    stability index", Journal of Risk Model Validation 14(4), 2020).
    """
    from scipy.stats import chi2

    if bins < 2 or not one or not two:
        return float("inf")
    return float((1 / one + 1 / two) * chi2.isf(_CHANCE, bins - 1))


def length_shares(one: NDArray[np.int64], two: NDArray[np.int64]) -> tuple[Shares, Shares]:
    """Return the shares of two samples of lengths in the deciles of both together."""
    both = np.concatenate([one, two])
    edges = np.unique(np.quantile(both, np.linspace(0.1, 0.9, 9)))
    return _shares(one, edges), _shares(two, edges)


def _shares(values: NDArray[np.int64], edges: Shares) -> Shares:
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
    return counts / len(values)
