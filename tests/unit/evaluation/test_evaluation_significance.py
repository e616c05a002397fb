"""Every interval and test agrees with statsmodels or scipy, or covers the truth in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from tutelage.evaluation.significance import (
    bootstrap_ratio,
    detectable_difference,
    detectable_rate,
    holm,
    mcnemar,
    mean_interval,
    paired_difference,
    sign_flip,
    tango,
    wilson,
)
from tutelage.evaluation.significance_cluster import design_effect


@pytest.fixture
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples: enough for a coverage rate, and quick."""
    monkeypatch.setattr("tutelage.evaluation.significance.ROUNDS", 800)


@pytest.mark.parametrize(("k", "n"), [(0, 66), (1, 5), (47, 66), (66, 66)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_is_that_of_statsmodels(k: int, n: int, confidence: float) -> None:
    low, high = proportion_confint(k, n, alpha=1 - confidence, method="wilson")
    found = wilson(k, n, confidence)
    assert (found.low, found.high) == pytest.approx((max(0, low), min(1, high)), abs=1e-12)


def test_no_rows_know_nothing() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    assert paired_difference([], []).n == 0


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 5), (12, 3), (40, 2)])
def test_mid_p_mcnemar_is_the_exact_p_less_half_the_observed(wins: int, losses: int) -> None:
    from scipy.stats import binom

    n = wins + losses
    exact = statsmodels_mcnemar([[10, wins], [losses, 10]], exact=True).pvalue if n else 1.0
    tail = binom.pmf(min(wins, losses), n, 0.5)
    expected = 2 * (binom.cdf(min(wins, losses), n, 0.5) - 0.5 * tail) if n else 1.0
    assert mcnemar(wins, losses) == pytest.approx(min(1.0, expected))
    assert mcnemar(wins, losses) <= exact + 1e-12


def test_holm_is_that_of_statsmodels() -> None:
    p = [0.04, 0.001, 0.03, 0.5, 0.012]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("wins", "losses", "n"), [(47, 0, 66), (12, 4, 50), (3, 3, 20), (0, 0, 30)]
)
def test_tango_limits_are_where_the_score_test_reaches_its_quantile(
    wins: int, losses: int, n: int
) -> None:
    low, high = tango(wins, losses, n)
    assert -1 <= low <= (wins - losses) / n <= high <= 1
    for limit in (low, high):
        assert abs(_score(limit, wins, losses, n)) == pytest.approx(1.959964, abs=1e-3)


def _score(delta: float, wins: int, losses: int, n: int) -> float:
    """The score statistic with the nuisance parameter found by maximum likelihood, numerically."""

    def loss(p21: float) -> float:
        p12, rest = p21 + delta, 1 - 2 * p21 - delta
        terms = [(wins, p12), (losses, p21), (n - wins - losses, rest)]
        return -sum(k * np.log(max(p, 1e-300)) for k, p in terms if k)

    bounds = (max(0.0, -delta), (1 - delta) / 2)
    p21 = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
    variance = n * (2 * p21 + delta - delta**2)
    return float((wins - losses - n * delta) / np.sqrt(variance))


@pytest.mark.parametrize(("n", "points"), [(50, 10.8), (100, 8.2), (200, 6.0), (500, 3.9)])
def test_smallest_detectable_difference_at_ten_percent_discordance(n: int, points: float) -> None:
    assert detectable_rate(n) * 100 == pytest.approx(points, abs=0.05)


def test_the_detectable_difference_is_found_in_80_percent_of_tries() -> None:
    rng = np.random.default_rng(3)
    n, sd = 60, 0.4
    effect = detectable_difference(sd / np.sqrt(n))
    draws = rng.normal(effect, sd, size=(4000, n))
    found = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / np.sqrt(n)) > 1.96
    assert 0.77 < found.mean() < 0.84


@pytest.mark.parametrize(("gain", "loss"), [(0.5, 0.02), (0.06, 0.04), (0.03, 0.0)])
def test_paired_interval_covers_the_true_difference(
    gain: float, loss: float, few_rounds: None
) -> None:
    rng = np.random.default_rng(11)
    hits = 0
    for trial in range(250):
        draw = rng.random(60)
        a, b = (draw < gain).astype(float), ((draw >= gain) & (draw < gain + loss)).astype(float)
        found = paired_difference(a, b, seed=trial)
        hits += found.low <= gain - loss <= found.high
    assert hits / 250 >= 0.92


def test_rows_in_clusters_are_not_taken_for_independent(few_rounds: None) -> None:
    rng = np.random.default_rng(5)
    naive = clustered = 0
    for trial in range(150):
        shift = rng.normal(0, 1, size=20)
        values = np.repeat(shift, 5) + rng.normal(0, 0.5, size=100)
        groups = [str(i // 5) for i in range(100)]
        zeros = np.zeros(100)
        plain = paired_difference(values, zeros, seed=trial)
        grouped = paired_difference(values, zeros, clusters=groups, seed=trial)
        naive += plain.low <= 0 <= plain.high
        clustered += grouped.low <= 0 <= grouped.high
    assert naive / 150 < 0.8
    assert clustered / 150 >= 0.89


def test_the_same_seed_gives_the_same_interval() -> None:
    a, b = [0.9, 0.1, 0.5, 0.7, 0.3], [0.2, 0.2, 0.4, 0.1, 0.3]
    assert paired_difference(a, b, seed=4) == paired_difference(a, b, seed=4)
    assert paired_difference(a, b, seed=4) != paired_difference(a, b, seed=5)


def test_equal_candidates_still_have_a_width() -> None:
    """The bootstrap alone would claim certainty when no row differs."""
    found = paired_difference([1.0] * 40, [1.0] * 40)
    assert found.low < -0.05 and found.high > 0.05 and found.p == 1.0
    assert found.detectable == pytest.approx(detectable_rate(40))


def test_sign_flips_find_what_a_t_test_finds() -> None:
    from scipy.stats import ttest_1samp

    d = np.random.default_rng(2).normal(0.3, 0.9, size=80)
    expected = ttest_1samp(d, 0).pvalue
    assert sign_flip(d, np.arange(80)) == pytest.approx(expected, abs=0.002)


def test_design_effect_is_one_for_single_rows_and_the_size_for_copies() -> None:
    values = [1.0, 0.0, 1.0, 0.0]
    assert design_effect(values, None) == 1.0
    copies = [v for v in values for _ in range(3)]
    assert design_effect(copies, [i // 3 for i in range(12)]) == pytest.approx(3.0)


def test_a_rate_over_clusters_is_less_sure() -> None:
    values = [1.0] * 20 + [0.0] * 20
    plain = mean_interval(values)
    grouped = mean_interval(values, clusters=[i // 5 for i in range(40)])
    assert grouped.estimate == plain.estimate == 0.5
    assert grouped.high - grouped.low > 1.8 * (plain.high - plain.low)


def test_ratio_of_percentiles_is_exact_for_a_scaled_copy() -> None:
    base = np.random.default_rng(1).lognormal(0, 0.3, size=64)

    def p95(values: np.ndarray) -> np.ndarray:
        return np.quantile(values, 0.95, axis=1)

    found = bootstrap_ratio(base * 1.5, base, p95, clusters=[i // 8 for i in range(64)])
    assert (found.low, found.estimate, found.high) == pytest.approx((1.5, 1.5, 1.5))
