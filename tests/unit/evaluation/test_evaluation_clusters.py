"""Clustered standard errors: statsmodels for CR0 and CR1, plain matrices for CR2 and its df."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import t
from statsmodels.api import OLS

from tutelage.evaluation.significance_cluster import (
    Kind,
    effective_pairs,
    effective_rows,
    error_of,
    mean_error,
    t_score,
)

CODES = np.array([0] * 5 + [1] * 2 + [2] * 9 + [3] + [4] * 3 + [5] * 4 + [6])


def values(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=7)[CODES] + rng.normal(0, 0.5, size=len(CODES))


@pytest.mark.parametrize(("kind", "corrected"), [("CR0", False), ("CR1", True)])
def test_the_sandwich_is_that_of_statsmodels(kind: Kind, corrected: bool) -> None:
    x = values()
    fit = OLS(x, np.ones((len(x), 1))).fit(
        cov_type="cluster", cov_kwds={"groups": CODES, "use_correction": corrected}
    )
    assert mean_error(x, CODES.tolist(), kind=kind).se == pytest.approx(fit.bse[0])


def test_cr0_is_millers_formula() -> None:
    """SE² = the plain one + 1/n² · the sum over pairs of one cluster (arXiv 2411.00640)."""
    x = values(1)
    e, n = x - x.mean(), len(x)
    pairs = sum(e[i] * e[j] for i in range(n) for j in range(n) if i != j and CODES[i] == CODES[j])
    squared = (e**2).sum() / n**2 + pairs / n**2
    assert mean_error(x, CODES.tolist(), kind="CR0").se == pytest.approx(np.sqrt(squared))


def test_cr2_and_its_degrees_of_freedom_are_those_of_the_matrices() -> None:
    """Bell and McCaffrey by (I − H) and its blocks' inverse roots, the correlation by moments."""
    x = values(2)
    n, groups = len(x), 7
    e = x - x.mean()
    residual_maker = np.eye(n) - np.ones((n, n)) / n
    within = (CODES[:, None] == CODES[None]) & ~np.eye(n, dtype=bool)
    rho = float((np.outer(e, e) * within).sum() / within.sum() / (e**2).mean())
    assert 0 < rho < 1
    omega = np.eye(n) * (1 - rho) + rho * (CODES[:, None] == CODES[None])
    forms, total = np.zeros((n, groups)), 0.0
    for g in range(groups):
        mine = g == CODES
        root = np.linalg.inv(np.real(sqrtm(residual_maker[np.ix_(mine, mine)])))
        total += float(np.ones(mine.sum()) @ root @ e[mine]) ** 2
        forms[:, g] = residual_maker[:, mine] @ root @ np.ones(mine.sum()) / n
    spread = forms.T @ omega @ forms
    found = mean_error(x, CODES.tolist())
    assert found.se == pytest.approx(np.sqrt(total) / n)
    assert found.df == pytest.approx(np.trace(spread) ** 2 / (spread**2).sum())
    assert found.df < groups - 1


def test_single_rows_give_the_textbook_error() -> None:
    x = values(3)
    found = mean_error(x)
    assert found.se == pytest.approx(x.std(ddof=1) / np.sqrt(len(x)))
    assert (found.df, found.inflation) == (pytest.approx(len(x) - 1), pytest.approx(1.0))
    even = mean_error(np.repeat(x, 2), np.repeat(np.arange(len(x)), 2).tolist())
    assert even.df == pytest.approx(len(x) - 1) and even.se == pytest.approx(found.se)


def test_one_cluster_knows_nothing() -> None:
    found = mean_error([1.0, 2.0, 3.0], ["a", "a", "a"])
    assert np.isnan(found.se) and found.df == 0
    assert mean_error([]).groups == 0
    with pytest.raises(ValueError, match="2 clusters are given for 3 rows"):
        mean_error([1.0, 2.0, 3.0], ["a", "a"])


def test_effective_rows_pay_for_copies_and_for_few_clusters() -> None:
    x = np.random.default_rng(4).normal(size=30)
    assert effective_rows(30, mean_error(x), 0.95) == 30
    copies = mean_error(np.repeat(x, 5), np.repeat(np.arange(30), 5).tolist())
    worth = effective_rows(150, copies, 0.95)
    assert 25 < worth < 31
    still = error_of(np.ones(10), np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2]))
    assert effective_rows(10, still, 0.95) == 3.0  # no spread to tell them apart: one a cluster


@pytest.mark.parametrize("df", [1.0, 3.7, 200.0])
def test_quantiles_are_those_of_scipy(df: float) -> None:
    assert t_score(0.975, df) == pytest.approx(t.ppf(0.975, df))
    assert t_score(0.975, float("inf")) == pytest.approx(1.959964, abs=1e-6)


def test_one_or_few_clusters_are_never_worth_more_than_their_rows() -> None:
    d = np.array([1.0, -1.0, 0.0, 1.0] * 3)
    assert effective_pairs(d, np.zeros(12, dtype=np.int64)) == 1.0
    assert effective_pairs(d, np.repeat(np.arange(3), 4)) == 12.0  # alike by luck
    assert effective_pairs(np.ones(12), np.repeat(np.arange(3), 4)) == 3.0
    copies = np.repeat(np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=40), 5)
    assert effective_pairs(copies, np.repeat(np.arange(40), 5)) == pytest.approx(40.0)


@pytest.mark.parametrize(("groups", "together"), [(4, 0.0), (8, 0.5), (20, 0.3)])
def test_a_difference_over_few_clusters_still_holds_the_truth(groups: int, together: float) -> None:
    from tutelage.evaluation.significance import tango

    rng = np.random.default_rng(groups)
    codes = np.repeat(np.arange(groups), 12)
    held = 0
    for _ in range(500):
        shared = (rng.random(groups) < together)[codes]
        differs = np.where(shared, (rng.random(groups) < 0.4)[codes], rng.random(len(codes)) < 0.4)
        wins = np.where(shared, (rng.random(groups) < 0.5)[codes], rng.random(len(codes)) < 0.5)
        d = np.where(differs, np.where(wins, 1.0, -1.0), 0.0)
        worth = effective_pairs(d, codes)
        share = worth / len(d)
        low, high = tango((d > 0).sum() * share, (d < 0).sum() * share, worth)
        held += low <= 1e-9 and high >= -1e-9
    assert held / 500 >= 0.92
