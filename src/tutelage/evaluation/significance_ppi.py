"""Few human scores and many of a judge: an unbiased mean that uses both (PPI++).

Prediction-powered inference: the mean of the human scores, moved by what the judge sees in the
rows no human scored, as far as the judge has proved itself on the rows that both scored
(Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453, section 6; λ is their equation for the mean).
A judge that knows nothing gets λ = 0, which leaves the human mean and its interval; a judge that
is off by a constant does no harm. It holds if the human rows were drawn at random from all rows;
rows picked because they looked bad break it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.evaluation.significance import Interval, wilson
from tutelage.evaluation.significance_cluster import cluster_codes, t_score, z_score

Array = NDArray[np.float64]
Clusters = tuple[Sequence[object], Sequence[object]]  # of the human rows, of all rows


@dataclass(frozen=True)
class JudgedMean(Interval):
    """A mean of `rows` rows, `n` of them scored by humans.

    `weight` is λ, how far the judge is trusted (0..1). `worth` is how many human scores alone
    would give as narrow an interval.
    """

    se: float
    weight: float
    rows: int
    worth: float


def ppi_mean(
    human: ArrayLike,
    judge_on_human: ArrayLike,
    judge_on_all: ArrayLike,
    *,
    clusters: Clusters | None = None,
    confidence: float = 0.95,
) -> JudgedMean:
    """Return the mean score over all rows as the humans would give it.

    `judge_on_all` holds the judge's scores of all rows, those of the human rows included, in any
    order. `clusters` names the cluster of each human row and of each of all rows. For 0/1 human
    scores the interval is Wilson's with as many rows as the mean is worth, else Student's. Raises
    ValueError if the lengths do not fit.
    """
    y, f, everything = (np.asarray(v, dtype=float) for v in (human, judge_on_human, judge_on_all))
    found = _powered(y, f, everything, clusters)
    df = _degrees(found, clusters)
    if found.n < 2 or not np.isin(y, (0.0, 1.0)).all():
        return _student(found, df, confidence)
    tail = 0.5 + confidence / 2
    sure = clusters is None and found.weight == 0  # the spread of a rate follows from the rate
    worth = found.worth if sure else found.worth * (z_score(tail) / t_score(tail, df)) ** 2
    rate = wilson(min(1.0, max(0.0, found.estimate)) * worth, worth, confidence)
    return replace(found, low=rate.low, high=rate.high)


def _student(found: JudgedMean, df: int, confidence: float) -> JudgedMean:
    """Put Student's limits around the estimate; unknown for fewer than two human scores."""
    half = t_score(0.5 + confidence / 2, df) * found.se
    return replace(found, low=found.estimate - half, high=found.estimate + half)


def _degrees(found: JudgedMean, clusters: Clusters | None) -> int:
    """Return the degrees of freedom: clusters with a human score, less the mean and λ."""
    groups = found.n if clusters is None else len(set(clusters[0]))
    return max(1, groups - 1 - (found.weight > 0))


def _powered(y: Array, f: Array, everything: Array, clusters: Clusters | None) -> JudgedMean:
    """Return estimate, standard error and λ; the limits are still unknown (NaN)."""
    n, rows = len(y), len(everything)
    if len(f) != n or rows < n:
        raise ValueError(
            f"{n} human scores need {n} scores of the judge and at least {n} rows in all, "
            f"not {len(f)} and {rows}"
        )
    if n < 2:
        estimate = float(y[0]) if n else math.nan
        return JudgedMean(estimate, math.nan, math.nan, n, math.nan, 0.0, rows, float(n))
    rest = rows - n
    weight = _weight(y, f, everything, rest)
    estimate = float(y.mean())
    if weight > 0:
        rest_mean = (everything.sum() - f.sum()) / rest
        estimate += weight * float(rest_mean - f.mean())
    se = math.sqrt(_variance(y - weight * f, weight, (f, everything), clusters))
    alone = math.sqrt(_variance(y, 0.0, (f, everything), clusters))
    worth = n * (alone / se) ** 2 if se > 0 else float(n)
    if clusters is not None:
        plain = float(y.var(ddof=1)) / n
        worth = n * plain / se**2 if se > 0 and plain > 0 else float(len(set(clusters[0])))
    return JudgedMean(estimate, math.nan, math.nan, n, se, weight, rows, worth)


def _weight(y: Array, f: Array, everything: Array, rest: int) -> float:
    """Return λ = cov(human, judge) / ((1 + n / N) var(judge)), held within 0..1."""
    spread = float(everything.var(ddof=1))
    if rest == 0 or spread == 0:
        return 0.0
    together = float(np.cov(y, f)[0, 1])
    return min(1.0, max(0.0, together / ((1 + len(y) / rest) * spread)))


def _variance(
    corrected: Array, weight: float, judge: tuple[Array, Array], clusters: Clusters | None
) -> float:
    """Return the variance of mean(human − λ·judge) over n rows + λ·mean(judge) over the rest.

    λ costs a degree of freedom. In clusters, what the rows of one cluster add is summed first.
    """
    f, everything = judge
    n, rest = len(corrected), len(everything) - len(f)
    if clusters is None:
        spread = float(((corrected - corrected.mean()) ** 2).sum()) / max(1, n - 1 - (weight > 0))
        return spread / n + (weight**2 * float(everything.var(ddof=1)) / rest if weight else 0.0)
    codes = cluster_codes([*clusters[0], *clusters[1]], n + len(everything))
    adds = [(corrected - corrected.mean()) / n, np.zeros(len(everything))]
    if weight:
        mean = (everything.sum() - f.sum()) / rest
        adds[0] = adds[0] - weight * (f - mean) / rest  # `everything` holds the human rows too
        adds[1] = weight * (everything - mean) / rest
    sums = np.bincount(codes, weights=np.concatenate(adds))
    groups = len(set(clusters[0]))
    return float((sums**2).sum()) * groups / max(1, groups - 1 - (weight > 0))
