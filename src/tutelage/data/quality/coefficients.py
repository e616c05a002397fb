"""Agreement beyond chance: Cohen, Fleiss, Krippendorff, Gwet, and per label, in numpy alone.

Every coefficient is a function of how often each pattern of answers occurs, so that a whole
bootstrap is a few matrix products: `weights` (B, P) holds B resamples of P patterns. Where
chance agreement is total (one category only) a coefficient is undefined: nan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.data.quality.ratings import Codes, Level, count_codes

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]  # (B, P) -> (B,) or (B, S)
Weighting = Literal["linear", "quadratic"]


def percent_agreement(codes: ArrayLike) -> float:
    """Return the share of agreeing pairs of answers, averaged over items with two or more."""
    return _plain(percent_statistic(*_counted(codes)), codes)


def cohen_kappa(first: ArrayLike, second: ArrayLike, weights: Weighting | None = None) -> float:
    """Return Cohen's kappa of two raters' codes (Cohen 1960; weighted: Cohen 1968).

    Items that one of them did not answer (-1) are left out. Weights are the distance of the
    categories' positions, plain or squared.
    """
    codes = np.array([first, second], dtype=np.int64)
    k = int(codes.max(initial=0)) + 1
    return _plain(cohen_statistic(codes, k, weights), codes)


def fleiss_kappa(codes: ArrayLike) -> float:
    """Return Fleiss' kappa of codes (R, N) (Fleiss 1971, Psychological Bulletin 76(5)).

    Items with fewer answers than the fullest are left out: it is defined for one number of
    answers an item.
    """
    return _plain(fleiss_statistic(_counted(codes)[0]), codes)


def krippendorff_alpha(
    codes: ArrayLike, level: Level = "nominal", values: ArrayLike | None = None
) -> float:
    """Return Krippendorff's alpha of codes (R, N), -1 missing (Krippendorff 2011).

    `values` (K,) are the categories' numbers for the interval level; positions by default.
    """
    counts = _counted(codes)[0]
    points = np.arange(counts.shape[1]) if values is None else np.asarray(values)
    return _plain(alpha_statistic(counts, level, points.astype(np.float64)), codes)


def gwet_ac1(codes: ArrayLike, k: int | None = None) -> float:
    """Return Gwet's AC1 of codes (R, N), -1 missing (Gwet 2008, doi:10.1348/000711006X126600).

    `k` is the number of categories there are, if not all of them were used.
    """
    array = np.asarray(codes, dtype=np.int64)
    size = k if k is not None else int(array.max(initial=0)) + 1
    return _plain(ac1_statistic(count_codes(array, size)), codes)


def percent_statistic(counts: Array, answers: Array) -> Statistic:
    """Return the statistic of percent agreement for patterns' counts (P, K), sums (P,)."""
    rated = answers >= 2
    pairs = np.maximum(answers * (answers - 1), 1)
    agreed = np.where(rated, (counts * (counts - 1)).sum(axis=1) / pairs, 0.0)
    kept = rated.astype(np.float64)
    return lambda w: _ratio(w @ agreed, w @ kept)


def cohen_statistic(codes: Codes, k: int, weights: Weighting | None) -> Statistic:
    """Return the statistic of Cohen's kappa for two raters' codes (2, P)."""
    distance = _distance(k, weights)  # (K, K)
    both: Array = np.all(codes >= 0, axis=0).astype(np.float64)
    apart: Array = distance[codes[0], codes[1]] * both
    first, second = (np.eye(k)[codes[r]] * both[:, None] for r in (0, 1))  # (P, K)

    def statistic(w: Array) -> Array:
        n: Array = w @ both
        left, right = w @ first, w @ second  # (B, K)
        expected: Array = ((left @ distance) * right).sum(axis=1)
        return 1 - _ratio((w @ apart) * n, expected)

    return statistic


def fleiss_statistic(counts: Array) -> Statistic:
    """Return the statistic of Fleiss' kappa for patterns' counts (P, K)."""
    answers = counts.sum(axis=1)
    size = answers.max(initial=0.0)
    full = ((answers == size) & (size >= 2)).astype(np.float64)
    kept = counts * full[:, None]
    agreed = full * ((counts * (counts - 1)).sum(axis=1) / max(size * (size - 1), 1))

    def statistic(w: Array) -> Array:
        n = w @ full
        observed = _ratio(w @ agreed, n)
        share = _ratio(w @ kept, (n * size)[:, None])
        expected = (share**2).sum(axis=1)
        return 1 - _ratio(1 - observed, 1 - expected)

    return statistic


def alpha_statistic(counts: Array, level: Level, values: Array) -> Statistic:
    """Return the statistic of Krippendorff's alpha for patterns' counts (P, K).

    alpha = 1 - (n - 1) Σ o_ck δ²_ck / Σ n_c n_k δ²_ck over coincidences o and their margins n.
    On an ordinal scale δ is the distance of the categories' mid-ranks, which move with n.
    """
    if level == "ordinal":
        return _ordinal(counts)
    answers = counts.sum(axis=1)
    paired = counts * (answers >= 2)[:, None]
    if level == "interval":
        spread = values - values.mean() if len(values) else values
        apart = _interval_apart(paired, answers, spread)
        return lambda w: _alpha(w @ apart, w @ paired, lambda n: _spread(n, spread))
    rest = np.maximum(answers - 1, 1)
    apart = ((paired * (answers[:, None] - paired)).sum(axis=1)) / rest

    def nominal(n: Array) -> Array:
        result: Array = n.sum(axis=1) ** 2 - (n**2).sum(axis=1)
        return result

    return lambda w: _alpha(w @ apart, w @ paired, nominal)


def ac1_statistic(counts: Array) -> Statistic:
    """Return the statistic of Gwet's AC1 for patterns' counts (P, K)."""
    answers = counts.sum(axis=1)
    k = counts.shape[1]
    rated = (answers >= 2).astype(np.float64)
    pairs = np.maximum(answers * (answers - 1), 1)
    agreed = rated * (counts * (counts - 1)).sum(axis=1) / pairs
    any_answer = (answers >= 1).astype(np.float64)
    share = counts / np.maximum(answers, 1)[:, None]

    def statistic(w: Array) -> Array:
        observed = _ratio(w @ agreed, w @ rated)
        usual = _ratio(w @ share, (w @ any_answer)[:, None])  # (B, K)
        expected = (usual * (1 - usual)).sum(axis=1) / max(k - 1, 1)
        return 1 - _ratio(1 - observed, 1 - expected)

    return statistic


def label_statistic(counts: Array) -> Statistic:
    """Return a statistic of shape (B, 2 K): each label's specific agreement, then its alpha.

    Specific agreement is the chance that another rater gives the label where one did (Cicchetti
    and Feinstein 1990, doi:10.1016/0895-4356(90)90159-M); for two raters 2a / (2a + b + c).
    Alpha takes the label against the rest.
    """
    paired, scaled = _scaled(counts)
    answers = counts.sum(axis=1, keepdims=True)
    both = scaled * np.maximum(paired - 1, 0)  # (P, K)
    apart = scaled * (answers - paired)

    def statistic(w: Array) -> Array:
        used: Array = w @ paired  # (B, K)
        n = used.sum(axis=1, keepdims=True)
        alpha = 1 - _ratio((n - 1) * (w @ apart), used * (n - used))
        return np.concatenate([_ratio(w @ both, used), alpha], axis=1)

    return statistic


def coincidence_matrix(counts: Array) -> Array:
    """Return Krippendorff's coincidence matrix (K, K) of items' counts (N, K).

    Off the diagonal it says how often two categories met on one item.
    """
    paired, scaled = _scaled(counts)
    found: Array = scaled.T @ paired
    found[np.diag_indices(counts.shape[1])] -= scaled.sum(axis=0)
    return found


def _scaled(counts: Array) -> tuple[Array, Array]:
    """Return the counts of items with two answers or more, and the same over answers - 1."""
    answers = counts.sum(axis=1, keepdims=True)
    paired = counts * (answers >= 2)
    return paired, paired / np.maximum(answers - 1, 1)


def _ordinal(counts: Array) -> Statistic:
    paired, scaled = _scaled(counts)
    k = counts.shape[1]

    def statistic(w: Array) -> Array:
        n = w @ paired  # (B, K)
        total = np.maximum(n.sum(axis=1, keepdims=True), 1)
        ranks = np.cumsum(n, axis=1) - n / 2
        ranks = ranks - (ranks * n).sum(axis=1, keepdims=True) / total
        observed = np.zeros(len(w))
        for c in range(k):  # a category with itself is at no distance
            met = (w * scaled[:, c]) @ paired  # (B, K)
            observed += (met * (ranks - ranks[:, [c]]) ** 2).sum(axis=1)
        return _alpha(observed, n, lambda m: _spread(m, ranks))

    return statistic


def _interval_apart(paired: Array, answers: Array, values: Array) -> Array:
    """Return Σ o_ck (v_c - v_k)² of each pattern, shape (P,)."""
    square, plain = paired @ values**2, paired @ values
    result: Array = 2 * (answers * square - plain**2) / np.maximum(answers - 1, 1)
    return result


def _spread(n: Array, values: Array) -> Array:
    """Return Σ n_c n_k (v_c - v_k)², shape (B,), of margins (B, K) and values (K,) or (B, K)."""
    total = n.sum(axis=1)
    result: Array = 2 * (total * (n * values**2).sum(axis=1) - (n * values).sum(axis=1) ** 2)
    return result


def _alpha(observed: Array, n: Array, expected: Callable[[Array], Array]) -> Array:
    return 1 - _ratio((n.sum(axis=1) - 1) * observed, expected(n))


def _distance(k: int, weights: Weighting | None) -> Array:
    """Return how far apart two categories count, shape (K, K)."""
    place = np.arange(k, dtype=np.float64)
    apart: Array = np.abs(np.subtract.outer(place, place))
    if weights is None:
        return np.minimum(apart, 1.0)
    return apart if weights == "linear" else apart * apart


def _ratio(top: Array, bottom: Array) -> Array:
    """Return top / bottom, nan where the bottom is nothing."""
    safe = bottom > 1e-12
    result: Array = np.where(safe, top / np.where(safe, bottom, 1.0), np.nan)
    return result


def _counted(codes: ArrayLike) -> tuple[Array, Array]:
    array = np.asarray(codes, dtype=np.int64)
    counts = count_codes(array, int(array.max(initial=0)) + 1)
    return counts, counts.sum(axis=1)


def _plain(statistic: Statistic, codes: ArrayLike) -> float:
    """Return a statistic over the items as they are, each once."""
    return float(statistic(np.ones((1, np.asarray(codes).shape[1])))[0])
