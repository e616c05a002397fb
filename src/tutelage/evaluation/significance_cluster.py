"""Standard errors for rows that belong together: near-duplicates, one patient, one document.

The cluster-robust (sandwich) variance of a mean with the small-sample correction CR2 and the
degrees of freedom of Bell and McCaffrey (Survey Methodology 2002, 28:169), the latter under a
working model of equal correlation within clusters (Imbens and Kolesár, Rev. Econ. Stat. 2016,
98:701). Miller (2024, arXiv 2411.00640) shows why evaluations need it; his formula is CR0. For
the mean alone all of it has a closed form. Nothing is resampled here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Kind = Literal["CR0", "CR1", "CR2"]
_LUCK = 8  # clusters up to which a design effect below 1 is not believed


@dataclass(frozen=True)
class MeanError:
    """The standard error of a mean, its degrees of freedom, and what it rests on.

    `plain` is the standard error that independent rows would have.
    """

    se: float
    df: float
    groups: int
    plain: float

    @property
    def inflation(self) -> float:
        """How many times clustering inflates the variance, at least 1 (the design effect)."""
        return max(1.0, (self.se / self.plain) ** 2) if self.plain > 0 else 1.0


def cluster_codes(clusters: Sequence[object] | None, n: int) -> NDArray[np.int64]:
    """Return one integer a row, equal for rows of one cluster; None: each row is its own."""
    if clusters is None:
        return np.arange(n, dtype=np.int64)
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} clusters are given for {n} rows")
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(c, len(seen)) for c in clusters], dtype=np.int64)


def mean_error(
    values: ArrayLike, clusters: Sequence[object] | None = None, *, kind: Kind = "CR2"
) -> MeanError:
    """Return the cluster-robust standard error of the mean of `values`.

    For a paired difference give the differences row by row. Without clusters CR1 and CR2 are the
    usual standard error, and df is n − 1. With fewer than two clusters both are unknown (NaN, 0).
    """
    x = np.asarray(values, dtype=float)
    return error_of(x, cluster_codes(clusters, len(x)), kind)


def error_of(x: Array, codes: NDArray[np.int64], kind: Kind = "CR2") -> MeanError:
    """Return the same for clusters that are already numbered."""
    n = len(x)
    groups = int(codes.max()) + 1 if n else 0
    if groups < 2:
        return MeanError(math.nan, 0.0, groups, math.nan)
    residual = x - x.mean()
    plain = float((residual**2).sum()) / (n * (n - 1))
    sizes = np.bincount(codes, minlength=groups).astype(float)
    squares: Array = np.bincount(codes, weights=residual, minlength=groups).astype(float) ** 2
    share = sizes / n
    if kind == "CR0":
        total = float(squares.sum())
    elif kind == "CR1":
        total = float(squares.sum()) * groups / (groups - 1)
    else:
        total = float((squares / (1 - share)).sum())
    df = _degrees(share, _intraclass(residual, squares, sizes), n)
    return MeanError(math.sqrt(total) / n, df, groups, math.sqrt(plain))


def error_of_sums(sums: Array, sizes: Array) -> MeanError:
    """Return the CR2 error of sum(sums) / sum(sizes), one entry a cluster (a text, its tokens).

    The degrees of freedom take the rows of a cluster for one and the same, to be safe.
    """
    groups, n = len(sums), float(sizes.sum())
    if groups < 2 or n <= 0:
        return MeanError(math.nan, 0.0, groups, math.nan)
    share = sizes / n
    squares = (sums - sums.sum() * share) ** 2
    se = math.sqrt(float((squares / (1 - share)).sum())) / n
    return MeanError(se, _degrees(share, 1.0, round(n)), groups, math.nan)


def _intraclass(residual: Array, squares: Array, sizes: Array) -> float:
    """Return the correlation of two rows of one cluster, by moments, within 0..1."""
    pairs, spread = float((sizes * (sizes - 1)).sum()), float((residual**2).mean())
    if pairs == 0 or spread == 0:
        return 0.0
    within = float(squares.sum() - (residual**2).sum()) / pairs
    return min(1.0, max(0.0, within / spread))


def _degrees(share: Array, correlation: float, n: int) -> float:
    """Return Satterthwaite's degrees of freedom of the CR2 variance of a mean.

    With e the residuals, the variance is a sum of squares of G linear forms; their covariance is
    diag(a) + W·u·uᵀ − u·vᵀ − v·uᵀ with the vectors below, and df = trace² / trace of the square.
    """
    sizes = share * n
    adjust = 1 / np.sqrt(1 - share)
    weight = sizes * (1 - correlation) + correlation * sizes**2  # variance of a cluster's sum
    diagonal, whole = adjust**2 * weight, float(weight.sum())
    u, v = adjust * share, adjust * weight
    trace = float((diagonal + whole * u**2 - 2 * u * v).sum())
    uu, uv, vv = float(u @ u), float(u @ v), float(v @ v)
    square = (
        float((diagonal**2).sum())
        + 2 * float((diagonal * (whole * u**2 - 2 * u * v)).sum())
        + whole**2 * uu**2
        + 2 * (uv**2 + uu * vv)
        - 4 * whole * uu * uv
    )
    return trace**2 / square


def design_effect(values: ArrayLike, clusters: Sequence[object] | None) -> float:
    """Return how many times clustering inflates the variance of the mean, at least 1 (by CR0)."""
    x = np.asarray(values, dtype=float)
    codes = cluster_codes(clusters, len(x))
    groups = int(codes.max()) + 1 if len(x) else 0
    if groups in (0, 1) or groups == len(x):
        return 1.0
    found = _inflation(x, codes)
    return 1.0 if math.isnan(found) else max(1.0, found)


def _inflation(x: Array, codes: NDArray[np.int64]) -> float:
    """Return the sum of squares of the clusters' sums over that of the rows; NaN if all agree."""
    residual = x - x.mean()
    plain = float((residual**2).sum())
    if plain == 0:
        return math.nan
    return float((np.bincount(codes, weights=residual) ** 2).sum()) / plain


def z_score(quantile: float) -> float:
    """Return the standard normal quantile."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(quantile)


def t_score(quantile: float, df: float) -> float:
    """Return the quantile of Student's t; `df` need not be whole, and infinity is the normal."""
    if not math.isfinite(df):
        return z_score(quantile)
    from scipy.special import stdtrit

    return float(stdtrit(max(df, 1e-3), quantile))


def effective_rows(n: float, error: MeanError, confidence: float) -> float:
    """Return how many independent rows are worth as much as these clustered ones, for one rate.

    n is divided by the design effect and by (t_df / t_(n−1))², which pays for the few clusters
    that the design effect is estimated from (Korn and Graubard, Survey Methodology 1998, 24:193).
    """
    if error.groups == n:
        return float(n)
    if not error.plain > 0:  # no spread to tell the clusters' part from: one row a cluster
        return float(error.groups)
    tail = 0.5 + confidence / 2
    return n / error.inflation * (t_score(tail, n - 1) / t_score(tail, error.df)) ** 2


def effective_pairs(differences: Array, codes: NDArray[np.int64]) -> float:
    """Return the same for a difference of two paired rates: n over the design effect by CR0.

    Its test sums squares as a sign-flip test does, so for few clusters it needs neither wider
    quantiles nor a larger sandwich: bench/significance.py finds intervals too wide with them. A
    design effect below 1 is luck where there are up to 8 clusters, and less and less so where
    there are more: it is cut off at 8 / G, and at 1/4.
    """
    n, groups = len(differences), int(codes.max()) + 1
    if groups == 1 or groups == n:
        return float(groups)
    found = _inflation(differences, codes)
    if math.isnan(found):
        return float(groups)
    return n / max(0.25, min(1.0, _LUCK / groups), found)
