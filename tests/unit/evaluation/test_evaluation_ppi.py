"""Human scores and a judge's: the formulas of the paper, a judge that is no good, and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, t

from tutelage.evaluation.significance import wilson
from tutelage.evaluation.significance_ppi import ppi_mean


def rows(
    seed: int, n: int = 80, rest: int = 400, noise: float = 0.4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Graded human scores of n rows, and a judge that follows them, a point too kind."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n + rest)
    judge = truth + rng.normal(0, noise, size=n + rest) + 1.0
    return truth[:n] + rng.normal(0, 0.2, size=n), judge[:n], judge


def test_estimate_and_weight_are_those_of_the_paper() -> None:
    """λ = cov(Y, f) / ((1 + n/N) var f); θ = mean Y + λ (mean f over the rest − mean f)."""
    y, f, everything = rows(1)
    n, rest = len(y), everything[80:]
    covariance = ((y - y.mean()) * (f - f.mean())).sum() / (n - 1)
    weight = covariance / ((1 + n / len(rest)) * np.var(everything, ddof=1))
    estimate = y.mean() + weight * (rest.mean() - f.mean())
    variance = np.var(y - weight * f, ddof=2) / n + weight**2 * np.var(everything, ddof=1) / 400
    found = ppi_mean(y, f, everything)
    assert found.weight == pytest.approx(weight) and 0.5 < weight < 1
    assert found.estimate == pytest.approx(estimate)
    assert found.se == pytest.approx(np.sqrt(variance))
    assert found.high - found.estimate == pytest.approx(t.ppf(0.975, n - 2) * np.sqrt(variance))


def test_the_order_of_all_rows_is_free() -> None:
    y, f, everything = rows(2)
    mixed = np.random.default_rng(0).permutation(everything)
    assert ppi_mean(y, f, mixed).estimate == pytest.approx(ppi_mean(y, f, everything).estimate)


def test_a_judge_that_knows_nothing_changes_nothing() -> None:
    y, _, _ = rows(3)
    found = ppi_mean(y, np.ones(80), np.ones(480))
    assert (found.weight, found.worth) == (0.0, 80.0)
    half = t.ppf(0.975, 79) * y.std(ddof=1) / np.sqrt(80)
    assert (found.low, found.high) == pytest.approx((y.mean() - half, y.mean() + half))
    contrary = ppi_mean(y, -y, -np.concatenate([y, y]))
    assert contrary.weight == 0.0 and contrary.estimate == pytest.approx(y.mean())


def test_a_rate_without_help_is_wilsons() -> None:
    y = np.array([1.0] * 45 + [0.0] * 15)
    found, alone = ppi_mean(y, y, y), wilson(45, 60)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    assert found.rows == 60 and found.weight == 0.0


def test_a_good_judge_is_worth_human_scores_and_its_bias_does_not_matter() -> None:
    y, f, everything = rows(4)
    found = ppi_mean(y, f, everything)
    assert 160 < found.worth < 480 and found.n == 80 and found.rows == 480
    kinder = ppi_mean(y, f + 3, everything + 3)
    assert (kinder.low, kinder.high) == pytest.approx((found.low, found.high))


def test_rows_in_clusters_are_summed_first() -> None:
    """Each row four times over: the interval is that of the single rows, up to df."""
    y, f, everything = rows(7)
    single = ppi_mean(y, f, everything)
    clusters = ([i // 4 for i in range(320)], [i // 4 for i in range(1920)])
    copied = ppi_mean(np.repeat(y, 4), np.repeat(f, 4), np.repeat(everything, 4), clusters=clusters)
    assert copied.estimate == pytest.approx(single.estimate, abs=1e-3)
    assert copied.se == pytest.approx(single.se, rel=0.05)
    blind = ppi_mean(np.repeat(y, 4), np.repeat(f, 4), np.repeat(everything, 4))
    assert blind.se < 0.6 * copied.se
    assert copied.worth == pytest.approx(single.worth, rel=0.1)


@pytest.mark.parametrize("rate", [False, True])
def test_the_interval_holds_the_truth_and_is_narrower(rate: bool) -> None:
    rng = np.random.default_rng(8)
    hits, widths, alone = 0, [], []
    truth = float(1 - norm.cdf(-0.8)) if rate else 0.0
    for _ in range(600):
        latent = rng.normal(size=600)
        y, f = latent, latent * 0.8 + rng.normal(0, 0.5, size=600) + 0.7
        if rate:
            y, f = (y > -0.8).astype(float), (f > 0).astype(float)
        found = ppi_mean(y[:60], f[:60], f)
        hits += found.low <= truth <= found.high
        widths.append(found.high - found.low)
        single = ppi_mean(y[:60], f[:60], f[:60])
        alone.append(single.high - single.low)
    assert 0.92 <= hits / 600 <= 0.98
    assert np.mean(widths) < (0.9 if rate else 0.75) * np.mean(alone)


def test_too_little_is_said_or_left_unknown() -> None:
    with pytest.raises(ValueError, match="3 human scores need 3 scores of the judge and at least"):
        ppi_mean([1, 0, 1], [1, 0], [1, 0, 1])
    with pytest.raises(ValueError, match="at least 3 rows in all, not 3 and 2"):
        ppi_mean([1, 0, 1], [1, 0, 1], [1, 0])
    assert np.isnan(ppi_mean([1.0], [1.0], [1.0, 0.0]).low)
