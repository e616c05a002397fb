"""Power, rows needed, margins and families: statsmodels, scipy, brute force, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, multinomial
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from tutelage.evaluation.significance import (
    bootstrap_ratio,
    paired_difference,
    sign_flip,
    tango,
    tango_statistic,
    token_mean,
)
from tutelage.evaluation.significance_family import corrected
from tutelage.evaluation.significance_margin import non_inferior
from tutelage.evaluation.significance_power import (
    detectable_difference,
    detectable_rate,
    gate_power,
    power_of_mean,
    power_of_rate,
    rows_needed,
)
from tutelage.evaluation.significance_resample import bootstrap_means


@pytest.mark.parametrize(("effect", "discordance"), [(0.1, 0.3), (0.15, 0.15), (0.0, 0.2)])
def test_power_of_rates_is_the_sum_over_all_outcomes(effect: float, discordance: float) -> None:
    n = 30
    chances = [(discordance + effect) / 2, (discordance - effect) / 2, 1 - discordance]
    expected = sum(
        multinomial.pmf([wins, losses, n - wins - losses], n, chances)
        for wins in range(n + 1)
        for losses in range(n + 1 - wins)
        if tango(wins, losses, n)[0] > 1e-9
    )
    assert power_of_rate(effect, n, discordance) == pytest.approx(expected, abs=1e-9)


def test_an_effect_beyond_the_discordance_means_that_more_rows_differ() -> None:
    """All to one side: at least four wins and no loss leave the interval above 0."""
    assert power_of_rate(0.2, 40, 0.05) == pytest.approx(binom.sf(3, 40, 0.2))
    assert power_of_rate(0.0, 40, 0.0) == 0.0


@pytest.mark.parametrize("n", [12, 60, 500])
def test_power_of_means_is_that_of_statsmodels(n: int) -> None:
    expected = TTestPower().power(0.3, n, 0.05, alternative="two-sided")
    below = TTestPower().power(-0.3, n, 0.025, alternative="larger")
    assert power_of_mean(0.06, n, 0.2) == pytest.approx(expected - below, abs=1e-6)


@pytest.mark.parametrize("discordance", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("n", [50, 200, 2000])
def test_the_detectable_rate_is_found_in_four_of_five_tries(n: int, discordance: float) -> None:
    assert power_of_rate(detectable_rate(n, discordance), n, discordance) == pytest.approx(
        0.8, abs=1e-3
    )


def test_too_few_rows_detect_nothing() -> None:
    assert detectable_rate(3) == math.inf and detectable_rate(0) == math.inf
    assert paired_difference([1, 1, 1], [0, 0, 0]).low < 0


@pytest.mark.parametrize("df", [8, 20, 100])
def test_the_detectable_difference_counts_that_errors_are_estimates(df: int) -> None:
    """Two sets of df + 1 rows: the first says what is detectable, the second looks for it."""
    rng = np.random.default_rng(df)
    n, tries = df + 1, 6000
    first = rng.normal(size=(tries, n)).std(axis=1, ddof=1) / np.sqrt(n)
    effect = detectable_difference(1.0, df=df) * first
    second = rng.normal(size=(tries, n)) + effect[:, None]
    from scipy.stats import t

    score = second.mean(axis=1) / (second.std(axis=1, ddof=1) / np.sqrt(n))
    assert (score > t.ppf(0.975, df)).mean() == pytest.approx(0.8, abs=0.025)


def test_rows_needed_are_the_fewest_with_that_power() -> None:
    assert rows_needed(0.05, discordance=0.0775) == pytest.approx(240, abs=25)
    for effect, discordance in ((0.05, 0.08), (0.1, 0.3)):
        n = rows_needed(effect, discordance=discordance)
        assert power_of_rate(effect, n, discordance) >= 0.8
        assert power_of_rate(effect, int(n * 0.9), discordance) < 0.8
    expected = TTestPower().solve_power(0.25, alpha=0.05, power=0.9)
    assert rows_needed(0.05, sd=0.2, power=0.9) == pytest.approx(math.ceil(expected), abs=1)
    assert rows_needed(0.05, sd=0.2, design_effect=2.0) == 2 * rows_needed(0.05, sd=0.2)


@pytest.mark.parametrize("given", [{}, {"sd": 0.1, "discordance": 0.1}])
def test_rows_needed_wants_one_kind_of_spread(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="either discordance or sd"):
        rows_needed(0.05, **given)
    with pytest.raises(ValueError, match="an effect above 0"):
        rows_needed(0.0, sd=0.1)


def some(n: int, wins: int, losses: int) -> tuple[list[float], list[float]]:
    a = [1.0] * wins + [0.0] * losses + [1.0] * (n - wins - losses)
    b = [0.0] * wins + [1.0] * losses + [1.0] * (n - wins - losses)
    return a, b


def test_a_gate_passes_at_least_and_at_most_so_often() -> None:
    assert gate_power([0.9, 0.8, 1.0]) == pytest.approx((0.7, 0.8))
    assert gate_power([0.3, 0.3]) == (0.0, 0.3)
    assert gate_power([]) == (1.0, 1.0)
    rng = np.random.default_rng(0)
    shared = rng.normal(size=4000)
    passed = np.stack([shared * 0.7 + rng.normal(size=4000) * 0.7 > q for q in (-1.3, -0.8)])
    low, high = gate_power(passed.mean(axis=1).tolist())
    assert low <= passed.all(axis=0).mean() <= high


@pytest.mark.parametrize(
    ("wins", "losses", "outcome"), [(9, 8, "pass"), (3, 30, "fail"), (8, 12, "not_enough_evidence")]
)
def test_not_worse_by_a_margin(wins: int, losses: int, outcome: str) -> None:
    found = non_inferior(*some(200, wins, losses), 0.05)
    assert found.outcome == outcome
    assert (found.p <= 0.025) == (found.difference.low >= -0.05)
    expected = tango_statistic(-0.05, wins, losses, 200)
    assert found.p == pytest.approx(0.5 * math.erfc(expected / math.sqrt(2)))


def test_not_worse_on_graded_scores_is_a_t_test() -> None:
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(4)
    a, b = rng.uniform(size=60), rng.uniform(size=60)
    expected = ttest_1samp(a - b, -0.1, alternative="greater").pvalue
    assert non_inferior(a, b, 0.1).p == pytest.approx(expected)
    assert non_inferior(a, a, 0.1).p == 0.0 and non_inferior([], [], 0.1).p == 1.0
    with pytest.raises(ValueError, match="at least 0"):
        non_inferior(a, b, -0.1)


def test_a_candidate_worse_by_the_margin_rarely_passes() -> None:
    rng = np.random.default_rng(5)
    passed = 0
    for _ in range(600):
        draw = rng.random(120)
        a, b = (draw < 0.08).astype(float), ((draw >= 0.08) & (draw < 0.21)).astype(float)
        passed += non_inferior(a, b, 0.05).outcome == "pass"
    assert passed / 600 <= 0.045


def test_a_family_is_holms() -> None:
    p = {"f1": 0.04, "bleu": 0.001, "chrf": 0.03}
    found = corrected(p)
    expected = multipletests(list(p.values()), method="holm")
    assert [c.p_holm for c in found.values()] == pytest.approx(list(expected[1]))
    assert [c.sure for c in found.values()] == list(expected[0])


def test_few_sign_flips_are_all_tried() -> None:
    d = np.array([0.3, 0.1, 0.2, 0.0])
    assert sign_flip(d, np.arange(4)) == pytest.approx(2 / 8)
    assert sign_flip(np.zeros(5), np.arange(5)) == 1.0


def test_few_values_are_drawn_by_their_counts_and_many_one_by_one() -> None:
    """Both ways give the bootstrap's mean and deviation."""
    rng = np.random.default_rng(6)
    few = rng.choice([-1.0, 0.0, 1.0], size=400)
    many = few + rng.normal(0, 1e-9, size=400)
    for x in (few, many):
        means = bootstrap_means(x, np.arange(400), 1, 4000)
        assert means.mean() == pytest.approx(x.mean(), abs=0.003)
        assert means.std() == pytest.approx(x.std() / 20, rel=0.05)


def test_a_mean_over_tokens_is_a_ratio_estimate() -> None:
    rng = np.random.default_rng(7)
    sizes = rng.integers(5, 60, size=40)
    sums = sizes * rng.normal(0.1, 0.03, size=40)
    found, detectable = token_mean(sums, sizes)
    assert found.estimate == pytest.approx(sums.sum() / sizes.sum())
    expected = bootstrap_ratio(sums, sizes.astype(float), lambda rows: rows.sum(axis=1))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.002)
    assert detectable == pytest.approx(2.9 * (found.high - found.low) / 4, rel=0.1)
