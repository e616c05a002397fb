"""How often one model's answers are preferred, as it is and with the length of answers held equal.

Judges like long answers. The length-controlled rate is that of Dubois et al. 2024 (arXiv
2404.04475, AlpacaEval 2): a logistic regression of the preference on the difference in length,

    logit p(ours preferred) = θ + φ · tanh(Δ / s),    Δ = characters of ours − of theirs,

with s the standard deviation of Δ; the rate is σ(θ), the preference where Δ is nothing. Their third
term, how hard an instruction is, is estimated over many models and cannot be told from one pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.evaluation.significance import (
    Interval,
    cluster_codes,
    mean_interval,
    wilson,
    z_score,
)

Array = NDArray[np.float64]
_STEPS = 60
_RIDGE = 0.04  # on φ alone: a normal prior with standard deviation 5, so that it stays finite


@dataclass(frozen=True)
class WinRate:
    """Shares from 0 to 1; a tie counts half. `length_effect` is φ: over 0, longer answers win."""

    raw: Interval
    controlled: Interval
    length_effect: float
    wins: int
    ties: int
    losses: int

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)


def win_rate(
    values: ArrayLike,
    ours: ArrayLike,
    theirs: ArrayLike,
    *,
    clusters: Sequence[object] | None = None,
    confidence: float = 0.95,
) -> WinRate:
    """Return both rates of N comparisons: values 1, 0.5 or 0, and the answers' lengths, (N,)."""
    y = np.asarray(values, dtype=float)
    difference = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    raw = _raw(y, clusters, confidence)
    controlled, effect = length_controlled(y, difference, clusters, confidence)
    return WinRate(
        raw, controlled, effect, int((y == 1).sum()), int((y == 0.5).sum()), int((y == 0).sum())
    )


def _raw(y: Array, clusters: Sequence[object] | None, confidence: float) -> Interval:
    if len(y) and (y == y[0]).all():  # a resample can't differ: a rate of as many rows can
        found = wilson(float(y.sum()), len(y), confidence)
        return Interval(float(y.mean()), found.low, found.high, len(y))
    return mean_interval(y, clusters=clusters, confidence=confidence)


def length_controlled(
    y: Array,
    difference: Array,
    clusters: Sequence[object] | None = None,
    confidence: float = 0.95,
) -> tuple[Interval, float]:
    """Return σ(θ) with its interval, and φ, of preferences y (N,) and differences in length (N,).

    Half a win and half a loss at no difference are added, so that θ is finite where all agree. The
    interval is Wald's on the logit scale, its variance robust to clusters.
    """
    n = len(y)
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0), 0.0
    spread = float(difference.std())
    t = np.tanh(difference / spread) if spread > 0 else np.zeros(n)
    x = np.column_stack([np.ones(n + 2), np.append(t, [0.0, 0.0])])  # (N + 2, 2)
    target = np.append(y, [0.0, 1.0])
    weight = np.append(np.ones(n), [0.5, 0.5])
    ridge = np.diag([0.0, _RIDGE])
    beta = np.zeros(2)
    for _ in range(_STEPS):
        p = _sigmoid(x @ beta)
        slope = x.T @ (weight * (target - p)) - ridge @ beta
        bend = (x * (weight * p * (1 - p))[:, None]).T @ x + ridge
        step = np.clip(np.linalg.solve(bend, slope), -2.0, 2.0)
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            break
    half = z_score(0.5 + confidence / 2) * math.sqrt(_variance(x, target, weight, beta, clusters))
    ends = _sigmoid(np.array([beta[0] - half, beta[0], beta[0] + half]))
    return Interval(float(ends[1]), float(ends[0]), float(ends[2]), n), float(beta[1])


def _variance(
    x: Array, target: Array, weight: Array, beta: Array, clusters: Sequence[object] | None
) -> float:
    """Return the variance of θ: the sandwich, what the rows of one cluster add summed first."""
    n = len(x) - 2
    p = _sigmoid(x @ beta)
    bread = np.linalg.inv((x * (weight * p * (1 - p))[:, None]).T @ x + np.diag([0.0, _RIDGE]))
    given = clusters if clusters is not None else range(n)
    codes = cluster_codes([*given, ("added", 0), ("added", 1)], n + 2)
    groups = int(codes.max()) + 1
    parts = x * (weight * (target - p))[:, None]
    sums = np.stack([np.bincount(codes, weights=parts[:, k], minlength=groups) for k in (0, 1)])
    found = bread @ (sums @ sums.T) @ bread * groups / max(1, groups - 1)
    return float(found[0, 0])


def _sigmoid(values: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    return result
