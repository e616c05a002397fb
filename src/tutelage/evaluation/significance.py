"""Intervals and tests for rates and paired differences; knows nothing of models or rows.

All randomness is seeded. Rows that belong together (near-duplicates, one patient) are passed as
`clusters`: they are resampled together, because treating them as independent makes intervals
too narrow. Every function here is checked against statsmodels, scipy or a simulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDS = 10_000  # bootstrap resamples
POWER = 0.8

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence limits, in the estimate's unit."""

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """A paired difference a − b: estimate, limits, standard error, and what it rests on.

    `wins` and `losses` count rows where a is better or worse; `p` is two-sided. `detectable` is
    the smallest true difference that a set like this one would find with 80 % power.
    """

    estimate: float
    low: float
    high: float
    se: float
    n: int
    clusters: int
    wins: int
    losses: int
    p: float
    detectable: float


def z_score(quantile: float) -> float:
    """Return the standard normal quantile."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(quantile)


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval for a rate; n = 0 gives the whole range 0..1."""
    if n <= 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    z = z_score(0.5 + confidence / 2)
    rate = successes / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return Interval(rate, max(0.0, middle - half), min(1.0, middle + half), round(n))


def cluster_codes(clusters: Sequence[object] | None, n: int) -> NDArray[np.int64]:
    """Return one integer a row, equal for rows of one cluster; None: each row is its own."""
    if clusters is None:
        return np.arange(n, dtype=np.int64)
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(c, len(seen)) for c in clusters], dtype=np.int64)


def design_effect(values: ArrayLike, clusters: Sequence[object] | None) -> float:
    """Return how many times clustering inflates the variance of the mean, at least 1."""
    x = np.asarray(values, dtype=float)
    codes = cluster_codes(clusters, len(x))
    groups = int(codes.max()) + 1 if len(x) else 0
    if groups in (0, 1) or groups == len(x):
        return 1.0
    residual = x - x.mean()
    plain = float((residual**2).sum())
    if plain == 0:
        return 1.0
    sums = np.bincount(codes, weights=residual, minlength=groups)
    return max(1.0, float((sums**2).sum()) / plain)


def mean_interval(
    values: ArrayLike,
    *,
    clusters: Sequence[object] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the mean with its interval: Wilson for 0/1 values, cluster bootstrap otherwise.

    For 0/1 values in clusters Wilson's n is divided by the design effect.
    """
    x = np.asarray(values, dtype=float)
    if len(x) == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    if np.isin(x, (0.0, 1.0)).all():
        effect = design_effect(x, clusters)
        found = wilson(float(x.sum()) / effect, len(x) / effect, confidence)
        return Interval(found.estimate, found.low, found.high, len(x))
    low, high, _ = _bootstrap_mean(x, cluster_codes(clusters, len(x)), confidence, seed)
    return Interval(float(x.mean()), low, high, len(x))


def _resamples(groups: int, seed: int) -> NDArray[np.int64]:
    """Return how often each cluster is drawn in each round, shape (ROUNDS, groups)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=ROUNDS)


def _bootstrap_mean(
    x: Array, codes: NDArray[np.int64], confidence: float, seed: int
) -> tuple[float, float, float]:
    """Return low, high and standard error of the mean, clusters drawn whole."""
    groups = int(codes.max()) + 1
    sums = np.bincount(codes, weights=x, minlength=groups)
    sizes = np.bincount(codes, minlength=groups).astype(float)
    drawn = _resamples(groups, seed)
    means = (drawn @ sums) / (drawn @ sizes)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    widen = math.sqrt(groups / (groups - 1)) if groups > 1 else 1.0  # the bootstrap divides by n
    middle = float(x.mean())
    return (
        middle + (float(low) - middle) * widen,
        middle + (float(high) - middle) * widen,
        float(means.std()) * widen,
    )


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: Sequence[object] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Return mean(a − b) over the same rows with its interval and p-value.

    The interval is the paired bootstrap's, clusters drawn whole. For 0/1 values it is widened to
    hold Tango's score interval too, since the bootstrap collapses when few rows differ. p is the
    mid-p McNemar test for independent 0/1 rows, else a sign-flip test over clusters.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    d, n = x - y, len(x)
    if n == 0:
        return Difference(math.nan, -1.0, 1.0, math.nan, 0, 0, 0, 0, 1.0, math.inf)
    codes = cluster_codes(clusters, n)
    groups = int(codes.max()) + 1
    low, high, se = _bootstrap_mean(d, codes, confidence, seed)
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    if bool(np.isin([x, y], (0.0, 1.0)).all()):
        effect = design_effect(d, clusters)
        score = tango(wins / effect, losses / effect, n / effect, confidence)
        low, high = min(low, score[0]), max(high, score[1])
        independent = groups == n
        p = mcnemar(wins, losses) if independent else sign_flip(d, codes, seed)
    else:
        p = sign_flip(d, codes, seed)
    detectable = detectable_difference(se, confidence) if se > 0 else detectable_rate(groups)
    return Difference(float(d.mean()), low, high, se, n, groups, wins, losses, p, detectable)


def tango(wins: float, losses: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Tango's score interval for a difference of paired rates (Stat. Med. 1998, 17:891)."""
    z = z_score(0.5 + confidence / 2)

    def statistic(delta: float) -> float:
        big = -wins - losses + (2 * n - wins + losses) * delta
        root = math.sqrt(max(0.0, big * big + 8 * n * losses * delta * (1 - delta)))
        restricted = (root - big) / (4 * n)  # p21 that is most likely when the difference is delta
        variance = n * (2 * restricted + delta * (1 - delta))
        gap = wins - losses - n * delta
        if variance <= 1e-300:
            return math.copysign(math.inf, gap) if gap else 0.0
        return gap / math.sqrt(variance)

    def solve(target: float) -> float:
        low, high = -1.0, 1.0  # the statistic falls as delta rises
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if statistic(middle) > target else (low, middle)
        return (low + high) / 2

    return solve(z), solve(-z)


def mcnemar(wins: int, losses: int) -> float:
    """Return the two-sided mid-p value of McNemar's test on the rows that differ."""
    total = wins + losses
    if total == 0:
        return 1.0
    small = min(wins, losses)
    weights = [math.comb(total, k) * 0.5**total for k in range(small + 1)]
    return min(1.0, 2 * (sum(weights) - 0.5 * weights[-1]))


def sign_flip(differences: Array, codes: NDArray[np.int64], seed: int = 0) -> float:
    """Return the two-sided p-value of a sign-flip permutation test over clusters."""
    sums = np.bincount(codes, weights=differences)
    flips = np.random.default_rng(seed).choice((-1.0, 1.0), size=(ROUNDS, len(sums)))
    seen = np.abs(flips @ sums) >= abs(sums.sum()) - 1e-12
    return float((seen.sum() + 1) / (ROUNDS + 1))


def detectable_difference(se: float, confidence: float = 0.95, power: float = POWER) -> float:
    """Return the smallest true difference found with `power`, from a standard error."""
    return (z_score(0.5 + confidence / 2) + z_score(power)) * se


def detectable_rate(
    n: float, discordance: float = 0.1, confidence: float = 0.95, power: float = POWER
) -> float:
    """Return the smallest detectable paired difference of rates when `discordance` rows differ."""
    if n <= 0:
        return math.inf
    return detectable_difference(math.sqrt(discordance / n), confidence, power)


def bootstrap_ratio(
    a: ArrayLike,
    b: ArrayLike,
    statistic: Callable[[Array], Array],
    *,
    clusters: Sequence[object] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return statistic(a) / statistic(b) over the same rows with a paired bootstrap interval.

    `statistic` maps an array (rounds, rows) to (rounds,). Clusters are drawn whole, and a round
    that draws fewer rows is padded by drawing on, so every round has as many rows as the set.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    n = len(x)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    picks = _cluster_picks(cluster_codes(clusters, n), seed, rounds=2000)
    ratios = statistic(x[picks]) / statistic(y[picks])
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    point = float(statistic(x[None])[0] / statistic(y[None])[0])
    return Interval(point, float(low), float(high), n)


def _cluster_picks(codes: NDArray[np.int64], seed: int, rounds: int) -> NDArray[np.int64]:
    """Return row numbers for each round, shape (rounds, rows), clusters kept whole."""
    generator = np.random.default_rng(seed)
    groups = int(codes.max()) + 1
    n = len(codes)
    if groups == n:
        return generator.integers(0, n, size=(rounds, n))
    members = [np.flatnonzero(codes == g) for g in range(groups)]
    picks = np.empty((rounds, n), dtype=np.int64)
    for r in range(rounds):
        drawn: list[int] = []
        while len(drawn) < n:
            drawn.extend(members[int(generator.integers(groups))].tolist())
        picks[r] = drawn[:n]
    return picks


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
