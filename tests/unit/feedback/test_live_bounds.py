"""Bounds that hold however often they are looked at: against exact laws and simulation."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from tutelage.feedback.live.bounds import BETS, fall_capital, lower_bound, mean_bounds


def looked_at(values: np.ndarray, alpha: float, mean: float) -> bool:
    """Return whether the bounds miss `mean` at any of the times 1, 2, 4, 8 ... and the end."""
    times = sorted({*(2**k for k in range(12) if 2**k < len(values)), len(values)})
    found = [mean_bounds(Counter(values[:n].tolist()), alpha) for n in times]
    return any(not b.low <= mean <= b.high for b in found)


def test_the_bounds_miss_the_mean_seldom_at_all_looks_together() -> None:
    rng = np.random.default_rng(0)
    missed = sum(looked_at((rng.random(600) < 0.9).astype(float), 0.1, 0.9) for _ in range(60))
    assert missed <= 6  # 10 %, and they are careful: far fewer


@pytest.mark.parametrize("make", ["levels", "any"])
def test_the_bounds_hold_for_scores_that_are_not_yes_or_no(make: str) -> None:
    rng = np.random.default_rng(1)
    values = rng.choice([0, 1 / 3, 2 / 3, 1], 800) if make == "levels" else rng.beta(8, 2, 800)
    found = mean_bounds(Counter(values.tolist()), 0.05)
    truth = 0.5 if make == "levels" else 0.8
    assert found.low < truth < found.high
    assert found.high - found.low < 0.15
    assert found.mean == pytest.approx(values.mean())


def test_ones_alone_push_the_lower_bound_as_far_as_the_best_bet_does() -> None:
    """With n ones a bet of b on "m or less" is worth (1 + b (1/m - 1))^n, in the mixture 100."""
    low = lower_bound({1.0: 200}, 0.01)
    capital = sum((1 + b * (1 / low - 1)) ** 200 for b in BETS) / len(BETS)
    assert capital == pytest.approx(100, rel=1e-6)
    assert mean_bounds({1.0: 200}, 0.02).low == pytest.approx(low)


def test_zeros_ones_and_nothing() -> None:
    assert (mean_bounds({}, 0.05).low, mean_bounds({}, 0.05).high) == (0.0, 1.0)
    none = mean_bounds({0.0: 50}, 0.05)
    assert none.low == 0.0 and 0 < none.high < 0.11
    flipped = mean_bounds({1.0: 50}, 0.05)
    assert flipped.low == pytest.approx(1 - none.high) and flipped.high == 1.0


def naive_capital(scores: list[float], level: float) -> float:
    """Return the capital after the last score by the definition: a bettor for each start."""
    total, n = 0.0, len(scores)
    for bet in BETS:
        for start in range(n):
            won = math.prod(1 + bet * ((1 - x) / (1 - level) - 1) for x in scores[start:])
            total += won / ((start + 1) * (start + 2)) / len(BETS)
    return total + 1 / (n + 1)


def test_the_capital_is_the_sum_over_bets_and_starts() -> None:
    rng = np.random.default_rng(2)
    scores = rng.random(40).tolist()
    path = fall_capital(scores, 0.6)
    for n in (1, 2, 17, 40):
        assert math.exp(path[n - 1]) == pytest.approx(naive_capital(scores[:n], 0.6), rel=1e-9)


def test_the_capital_rises_with_the_level() -> None:
    scores = (np.random.default_rng(3).random(300) < 0.8).astype(float)
    paths = np.stack([fall_capital(scores, level) for level in (0.3, 0.6, 0.8, 0.95, 1.0)])
    assert (np.diff(paths, axis=0) >= -1e-12).all()


def test_no_fall_is_seen_in_more_than_the_promised_share_of_lives() -> None:
    """The worst case: the mean is exactly the level, and every score is a look."""
    rng = np.random.default_rng(4)
    lives = (rng.random((200, 800)) < 0.9).astype(float)
    false = sum(fall_capital(life, 0.9).max() >= math.log(10) for life in lives)
    assert false <= 20


@pytest.mark.parametrize("before", [0, 1_000])
def test_a_fall_is_found_whether_it_comes_at_once_or_late(before: int) -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        life = np.concatenate((rng.random(before) < 0.95, rng.random(800) < 0.8)).astype(float)
        path = fall_capital(life, 0.92)
        found = int(np.argmax(path >= math.log(400)))
        assert before < found < before + 800


def test_a_level_of_one_is_broken_by_the_first_miss_and_of_zero_never() -> None:
    assert fall_capital([1.0, 1.0, 0.0], 1.0)[-1] > math.log(1e6)
    assert fall_capital([0.0] * 5, 0.0).tolist() == [0.0] * 5
    assert fall_capital([], 0.5).tolist() == []
