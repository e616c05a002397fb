"""The bounds of A/B tests: against known values, and under continuous looking."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.feedback.ab.balance import balance, log_e_path
from tutelage.feedback.ab.bounds import (
    e_value,
    fixed_information,
    information_for,
    radius,
    tuned_for,
)
from tutelage.feedback.ab.effect import BURN_IN, FEW, Design, Values, arm_of, effect_of, scale_of


def values(
    rng: np.random.Generator, users: int, requests: int, rates: tuple[float, float] = (0.6, 0.6)
) -> Values:
    """Return 0/1 values of users who come back and differ; pairs are (stable, candidate)."""
    user = (users * rng.random(requests) ** 2).astype(np.int64)  # some come often
    _, first, codes = np.unique(user, return_index=True, return_inverse=True)
    user = np.argsort(np.argsort(first))[codes]
    arms = rng.random(len(first)) < 0.5
    mean = np.where(arms, rates[1], rates[0])
    rate = rng.beta(2 * mean, 2 * (1 - mean))
    value = (rng.random(requests) < rate[user]).astype(float)
    return Values(user, arms[user], value, np.arange(requests, dtype=float))


def ever(found: Values, alpha: float, looks: int = 40) -> bool:
    """Return whether any look excludes "no difference"."""
    come = np.maximum.accumulate(found.user) + 1
    scale = scale_of(found, come, Design(0.5, alpha), bounded=True)
    assert scale is not None
    places = np.arange(len(found))
    ends = np.unique(np.geomspace(scale.since, len(found), looks).astype(int))
    return any(
        effect_of(found.only(places < end), scale, alpha, bounded=True).decided for end in ends
    )


def test_looking_all_the_time_is_wrong_no_more_often_than_promised() -> None:
    rng = np.random.default_rng(5)
    wrong = sum(ever(values(rng, 400, 1500), 0.1) for _ in range(120))
    assert wrong <= 0.1 * 120 + 2 * (0.1 * 0.9 * 120) ** 0.5


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(6)
    assert sum(ever(values(rng, 2000, 4000, (0.5, 0.7)), 0.05, 8) for _ in range(10)) == 10


def test_clustering_sees_that_a_user_s_answers_are_alike() -> None:
    """Ten times the same answer from each user is one answer a user, not ten."""
    rng = np.random.default_rng(1)
    value = (rng.random(200) < 0.4).astype(float)
    once = Values(np.arange(200), np.zeros(200, bool), value, np.arange(200.0))
    ten = Values(
        np.repeat(np.arange(200), 10), np.zeros(2000, bool), np.repeat(value, 10), np.arange(2000.0)
    )
    one, many = arm_of(once, bounded=False), arm_of(ten, bounded=False)
    assert many.mean == pytest.approx(one.mean)
    assert many.variance == pytest.approx(one.variance)
    assert one.variance == pytest.approx(value.var(ddof=1) / 200)


def test_an_arm_where_nothing_happened_is_not_sure() -> None:
    none = Values(np.arange(30), np.zeros(30, bool), np.zeros(30), np.arange(30.0))
    assert arm_of(none, bounded=True).variance > 0
    assert arm_of(none, bounded=False).variance == 0
    assert np.isnan(arm_of(none.only(none.value > 1), bounded=True).mean)


def test_one_user_who_sends_most_leaves_no_interval() -> None:
    """He is half of his arm: what the others said can't tell how far he is from the rest."""
    rng = np.random.default_rng(3)
    found = values(rng, 400, 1500)
    heavy = np.where(rng.random(1500) < 0.5, found.user[0], found.user)
    ours = found.candidate.copy()
    ours[heavy == found.user[0]] = found.candidate[0]
    found = Values(heavy, ours, found.value, found.at)
    come = np.maximum.accumulate(found.user) + 1
    scale = scale_of(found, come, Design(0.5, 0.05), bounded=True)
    effect = effect_of(found, scale, 0.05, bounded=True)
    assert scale is not None and effect.low is None
    arm = effect.candidate if found.candidate[0] else effect.stable
    assert arm.worth < FEW < arm.users


def test_there_is_no_interval_before_enough_users() -> None:
    rng = np.random.default_rng(2)
    few = values(rng, 10_000, 2 * BURN_IN - 1)
    come = np.maximum.accumulate(few.user) + 1
    scale = scale_of(few, come, Design(0.5, 0.05), bounded=True)
    assert scale is None
    effect = effect_of(few, scale, 0.05, bounded=True)
    assert (effect.low, effect.high, effect.decided, effect.within(2.0)) == (None, None, 0, False)


def test_the_radius_is_robbins_mixture() -> None:
    """At its edge the e-value is 1 / alpha: interval and test are one statement."""
    for information in (3.0, 50.0, 4e4):
        half = radius(information, 20.0, 0.05)
        assert e_value(half, information, 20.0) == pytest.approx(20.0)
    assert radius(0.0, 1.0, 0.05) == np.inf


def test_it_is_sharpest_where_it_is_tuned_for() -> None:
    r = tuned_for(1000.0, 0.05)
    best = radius(1000.0, r, 0.05)
    assert best < radius(1000.0, r * 2, 0.05) and best < radius(1000.0, r / 2, 0.05)
    assert best == pytest.approx(3.03 / 1000**0.5, rel=0.01)  # beside 1.96 for a single look


def test_what_is_needed_rises_with_the_square() -> None:
    r = tuned_for(1000.0, 0.05)
    one, half = information_for(0.1, r, 0.05), information_for(0.05, r, 0.05)
    assert 3.5 < half / one < 5
    assert fixed_information(0.1, 0.05) == pytest.approx(784.9, rel=0.001)  # (1.96 + 0.84)^2 / 0.01
    assert information_for(0.0, r, 0.05) == np.inf


def test_a_split_as_asked_is_called_so() -> None:
    alarms = 0
    for seed in range(100):
        arms = np.random.default_rng(seed).random(3000) < 0.2
        alarms += balance(arms, 0.2).broken
    assert alarms <= 3  # 1 % promised, after any user


def test_a_split_that_loses_users_is_seen() -> None:
    arms = np.random.default_rng(0).random(3000) < 0.4
    found = balance(arms, 0.5)
    assert found.broken and found.p < 1e-6
    assert "users of one arm are lost" in found.sentence()
    assert balance(arms[:0], 0.5).sentence() == "no user has come yet"


def test_the_split_s_e_value_is_a_likelihood_ratio() -> None:
    """Its mean under the asked split is 1, whatever the number of users: here by enumeration."""
    total = 0.0
    for code in range(2**8):
        arms = np.array([code >> bit & 1 for bit in range(8)], dtype=bool)
        chance = 0.3 ** arms.sum() * 0.7 ** (~arms).sum()
        total += chance * np.exp(log_e_path(arms, 0.3)[-1])
    assert total == pytest.approx(1.0)
