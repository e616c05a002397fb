"""The e-values: the exact law, expectation at most one, prefixes that agree with the whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tutelage.release import sequential as seq


def test_the_tilted_mean_is_scipys_hypergeometric() -> None:
    n, s, n_c = (
        np.array([20, 40, 8, 400, 5]),
        np.array([3, 0, 8, 390, 2]),
        np.array([2, 4, 3, 7, 5]),
    )
    ours = seq.log_tilted_means(n, s, n_c)
    for row, odds in enumerate(seq.ODDS):
        for b in range(len(n)):
            law = stats.hypergeom(n[b], s[b], n_c[b])
            k = np.arange(0, n_c[b] + 1)
            assert ours[row, b] == pytest.approx(np.log((law.pmf(k) * odds**k).sum()), abs=1e-9)


def test_a_block_without_both_arms_or_without_harm_says_nothing() -> None:
    n = np.array([10, 10, 10, 10])
    s, n_c = np.array([0, 10, 4, 4]), np.array([3, 3, 0, 10])
    k = np.array([0, 3, 0, 4])
    log_e = np.log(seq.ODDS)[:, None] * k - seq.log_tilted_means(n, s, n_c)
    assert np.allclose(log_e, 0)


def test_each_e_value_has_expectation_one_when_arms_are_equal() -> None:
    n, s, n_c = 40, 6, 5
    law = stats.hypergeom(n, s, n_c)
    mean = seq.log_tilted_means(np.array([n]), np.array([s]), np.array([n_c]))[:, 0]
    k = np.arange(n_c + 1)
    for row, odds in enumerate(seq.ODDS):
        assert (law.pmf(k) * odds**k / np.exp(mean[row])).sum() == pytest.approx(1)
        better = stats.nchypergeom_fisher(n, s, n_c, 0.6)  # the canary is better
        assert (better.pmf(k) * odds**k / np.exp(mean[row])).sum() < 1


def test_the_capital_is_the_mixture_with_fixed_share() -> None:
    rng = np.random.default_rng(0)
    log_e = rng.normal(0, 1, (len(seq.ODDS), 30))
    idle, parts, plain = seq.IDLE, np.full(len(seq.ODDS), (1 - seq.IDLE) / len(seq.ODDS)), []
    for e in np.exp(log_e).T:
        parts = parts * e
        plain.append(parts.sum() + idle)
        parts, idle = parts + idle * seq.AWAKEN / len(parts), idle * (1 - seq.AWAKEN)
    assert np.allclose(seq.log_capital(log_e), np.log(plain))


def test_capital_neither_overflows_nor_dies() -> None:
    up = seq.log_capital(np.full((len(seq.ODDS), 5000), 3.0))
    assert np.isfinite(up).all() and up[-1] > 10_000
    down = seq.log_capital(np.full((len(seq.ODDS), 5000), -3.0))
    assert np.isfinite(down).all()


def test_what_was_decided_does_not_change_with_what_comes_later() -> None:
    rng = np.random.default_rng(1)
    canary, bad = rng.random(3000) < 0.1, rng.random(3000) < 0.2
    latency = rng.lognormal(5, 0.5, 3000)
    history = np.zeros(0)
    ends = seq.cut(canary).ends
    for cut in (7, 100, 1234, 2999):
        early = seq.cut(canary[:cut]).ends
        assert (early == ends[: len(early)]).all()
        upto = int(early[-1]) if len(early) else 0
        quantiles = (0.5, 0.99)
        part = seq.thresholds(latency[:cut], canary[:cut], early, quantiles, history)[:, :upto]
        assert (part == seq.thresholds(latency, canary, ends, quantiles, history)[:, :upto]).all()
        path = seq.share_test(bad, canary, ends)[: len(early)]
        assert np.allclose(seq.share_test(bad[:cut], canary[:cut], early), path)


def test_block_sizes_look_at_arms_only_and_hold_some_canary() -> None:
    rng = np.random.default_rng(2)
    for weight in (0.01, 0.05, 0.5, 1.0):
        canary = rng.random(20_000) < weight
        sizes = np.diff(np.concatenate(([0], seq.cut(canary).ends)))
        assert sizes.min() >= seq.MIN_BLOCK and sizes.max() <= seq.MAX_BLOCK
        per_block = seq.block_sums(canary, seq.cut(canary).ends)[5:].mean()
        assert per_block >= 1.5


def test_a_block_holds_one_request_of_a_user_however_many_one_sends() -> None:
    rng = np.random.default_rng(4)
    user = np.repeat(rng.integers(0, 300, 800), rng.integers(1, 30, 800))
    user[rng.random(len(user)) < 0.05] = seq.NOBODY
    canary = np.where(user == seq.NOBODY, rng.random(len(user)) < 0.25, user % 4 == 0)
    kept, ends = seq.cut(canary, user)
    assert (np.diff(kept) > 0).all() and ends[-1] == len(kept)
    for start, end in zip((0, *ends), ends, strict=False):
        named = user[kept[start:end]]
        named = named[named != seq.NOBODY]
        assert len(set(named)) == len(named)
    for upto in (9, 500, 4321):
        early = seq.cut(canary[:upto], user[:upto])
        assert (early.kept == kept[: len(early.kept)]).all()
        assert (early.ends == ends[: len(early.ends)]).all()


def test_one_user_alone_is_one_request_in_a_block() -> None:
    kept, ends = seq.cut(np.ones(1000, bool), np.zeros(1000, np.int64))
    assert len(kept) == len(ends) > 10


def test_thresholds_come_from_the_baseline_before_the_block() -> None:
    canary = np.array([False, True] * 40)
    latency = np.where(canary, 1e9, 100.0)
    ends = seq.cut(canary).ends
    cold = seq.thresholds(latency, canary, ends, (0.5,), np.zeros(0))[0]
    assert np.isinf(cold[:16]).all() and cold[ends[-1] - 1] == 100.0
    warm = seq.thresholds(latency, canary, ends, (0.5,), np.full(20, 70.0))[0]
    assert warm[0] == 70.0


def test_no_requests_no_figures() -> None:
    nothing = np.zeros(0, bool)
    ends = seq.cut(nothing).ends
    assert len(ends) == 0
    assert len(seq.share_test(nothing, nothing, ends)) == 0
    assert seq.expected_bad(nothing, nothing, ends) == 0
