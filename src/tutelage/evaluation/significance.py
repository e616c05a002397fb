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

from tutelage.evaluation.significance_cluster import (
    MeanError,
    cluster_codes,
    effective_pairs,
    effective_rows,
    error_of,
    error_of_sums,
    t_score,
    z_score,
)
from tutelage.evaluation.significance_family import holm
from tutelage.evaluation.significance_power import POWER, detectable_difference, detectable_rate
from tutelage.evaluation.significance_resample import (
    ROUNDS,
    bootstrap_means,
    bootstrap_ratios,
    sign_flip,
)

__all__ = [
    "ROUNDS", "Difference", "Interval", "bootstrap_ratio", "cluster_codes",
    "detectable_difference", "detectable_rate", "holm", "mcnemar", "mean_interval",
    "paired_difference", "sign_flip", "tango", "tango_statistic", "token_mean", "wilson",
    "z_score",
]  # fmt: skip

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
    df: float = math.inf  # degrees of freedom of se
    rate: bool = False  # whether all scores are 0 or 1
    worth: float = 0.0  # independent rows that would say as much


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval for a rate; n = 0 gives the whole range 0..1."""
    if n <= 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    z = z_score(0.5 + confidence / 2)
    rate = successes / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return Interval(rate, max(0.0, middle - half), min(1.0, middle + half), round(n))


def mean_interval(
    values: ArrayLike,
    *,
    clusters: Sequence[object] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the mean with its interval: Wilson for 0/1 values, cluster bootstrap otherwise.

    0/1 values in clusters count as many rows as they are worth (see `effective_rows`).
    """
    x = np.asarray(values, dtype=float)
    if len(x) == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    codes = cluster_codes(clusters, len(x))
    error = error_of(x, codes)
    if np.isin(x, (0.0, 1.0)).all():
        worth = effective_rows(len(x), error, confidence)
        found = wilson(float(x.mean()) * worth, worth, confidence)
        return Interval(found.estimate, found.low, found.high, len(x))
    low, high = _bootstrap_limits(x, codes, error, confidence, seed)
    floor = 0.0 if x.min() >= 0 else -math.inf
    return Interval(float(x.mean()), max(floor, low), high, len(x))


def _bootstrap_limits(
    x: Array, codes: NDArray[np.int64], error: MeanError, confidence: float, seed: int
) -> tuple[float, float]:
    """Return the bootstrap's percentiles, spread to the width that Student's t has.

    Percentiles alone are too narrow for few rows or clusters: by √(1 − 1/G), and because they
    follow the normal (Hesterberg, Am. Stat. 2015, 69:371). Their distances to the mean are scaled
    so that the resamples have the CR2 standard error and the tails of t; the skew stays.
    """
    middle = float(x.mean())
    if error.groups < 2:  # says nothing of the next one: all that scores of 0..1 allow
        return min(-1.0, middle), max(1.0, middle)
    return _spread(bootstrap_means(x, codes, seed, ROUNDS), middle, error, confidence)


def _spread(
    means: Array, middle: float, error: MeanError, confidence: float
) -> tuple[float, float]:
    spread, tail = float(means.std()), (1 - confidence) / 2
    if spread == 0 or error.se == 0:
        return middle, middle
    widen = error.se / spread * t_score(1 - tail, error.df) / z_score(1 - tail)
    low, high = np.quantile(means, [tail, 1 - tail])
    return middle + (float(low) - middle) * widen, middle + (float(high) - middle) * widen


def token_mean(
    sums: ArrayLike, sizes: ArrayLike, *, confidence: float = 0.95, seed: int = 0
) -> tuple[Interval, float]:
    """Return sum(sums) / sum(sizes) with its interval, and the smallest detectable change.

    One entry a text, `sizes` its tokens; texts are drawn whole. A single text has no interval.
    """
    x, n = np.asarray(sums, dtype=float), np.asarray(sizes, dtype=float)
    error = error_of_sums(x, n)
    if error.groups < 2:
        middle = float(x.sum() / n.sum()) if n.sum() > 0 else math.nan
        return Interval(middle, -math.inf, math.inf, len(x)), math.inf
    middle = float(x.sum() / n.sum())
    low, high = _spread(bootstrap_ratios(x, n, seed, ROUNDS), middle, error, confidence)
    detectable = detectable_difference(error.se, confidence, df=error.df)
    return Interval(middle, low, high, len(x)), detectable


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: Sequence[object] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Return mean(a − b) over the same rows with its interval and p-value.

    0/1 values: Tango's score interval and the mid-p McNemar test; in clusters as many rows count
    as they are worth, and the test is a sign flip over clusters. Graded values: the paired
    bootstrap with clusters drawn whole, and the sign-flip test.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    d, n = x - y, len(x)
    if n == 0:
        return Difference(math.nan, -1.0, 1.0, math.nan, 0, 0, 0, 0, 1.0, math.inf)
    codes = cluster_codes(clusters, n)
    error = error_of(d, codes)
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    rate = bool(np.isin([x, y], (0.0, 1.0)).all())
    worth = effective_pairs(d, codes)
    if rate:
        low, high = tango(wins * worth / n, losses * worth / n, worth, confidence)
        detectable = _detectable_pairs(d, error, (wins + losses) / n, confidence)
    else:
        low, high = _bootstrap_limits(d, codes, error, confidence, seed)
        detectable = detectable_difference(error.se, confidence, df=error.df)
        if not detectable > 0:
            detectable = detectable_rate(error.groups, confidence=confidence)
    single = rate and error.groups == n
    p = mcnemar(wins, losses) if single else sign_flip(d, codes, seed, ROUNDS)
    return Difference(
        float(d.mean()), low, high, error.se, n, error.groups, wins, losses, p, detectable,
        error.df, rate, worth,
    )  # fmt: skip


def _detectable_pairs(
    differences: Array, error: MeanError, discordance: float, confidence: float
) -> float:
    """Return the smallest detectable difference of two paired rates, by the exact power.

    In clusters the rows are first cut to what they are worth, and the result is widened for the
    doubt about the design effect, as `detectable_difference` is for that about the error.
    """
    n = len(differences)
    if error.groups == n:
        return detectable_rate(n, discordance, confidence)
    worth = effective_rows(n, error, confidence)
    found = detectable_rate(worth, discordance, confidence)
    if error.groups < 2 or not math.isfinite(found):
        return math.inf
    certain = t_score(0.5 + confidence / 2, error.df) + z_score(POWER)
    widened = found * detectable_difference(1.0, confidence, df=error.df) / certain
    return widened if widened <= 1 else math.inf


def tango(wins: float, losses: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Tango's score interval for a difference of paired rates (Stat. Med. 1998, 17:891)."""
    z = z_score(0.5 + confidence / 2)

    def solve(target: float) -> float:
        low, high = -1.0, 1.0  # the statistic falls as delta rises
        for _ in range(60):
            middle = (low + high) / 2
            above = tango_statistic(middle, wins, losses, n) > target
            low, high = (middle, high) if above else (low, middle)
        return (low + high) / 2

    return solve(z), solve(-z)


def tango_statistic(delta: float, wins: float, losses: float, n: float) -> float:
    """Return the score statistic, standard normal if the true difference is `delta`."""
    big = -wins - losses + (2 * n - wins + losses) * delta
    root = math.sqrt(max(0.0, big * big + 8 * n * losses * delta * (1 - delta)))
    restricted = (root - big) / (4 * n)  # p21 that is most likely when the difference is delta
    variance = n * (2 * restricted + delta * (1 - delta))
    gap = wins - losses - n * delta
    if variance <= 1e-300:
        return math.copysign(math.inf, gap) if gap else 0.0
    return gap / math.sqrt(variance)


def mcnemar(wins: int, losses: int) -> float:
    """Return the two-sided mid-p value of McNemar's test on the rows that differ."""
    total = wins + losses
    if total == 0:
        return 1.0
    small = min(wins, losses)
    weights = [math.comb(total, k) * 0.5**total for k in range(small + 1)]
    return min(1.0, 2 * (sum(weights) - 0.5 * weights[-1]))


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
