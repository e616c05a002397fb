"""Tests that may be looked at after every request: e-processes over blocks of both arms' requests.

**The test.** Requests of both arms, in order of time, are cut into blocks whose size does not
depend on their outcomes, with one request of a user each (`cut`). In a block of n requests, n_c of
them canary, s requests were "bad" (failed, flagged, or slower than a threshold fixed before the
block), k of those in the canary. If a canary request is no likelier to be bad than a baseline
request of the same moment, k given (n, n_c, s) is stochastically at most hypergeometric J, so for
every w > 1

    e = w^k / E[w^J],   J ~ Hypergeometric(n, s, n_c)

has expectation at most 1: an e-value, the likelihood ratio of Fisher's noncentral hypergeometric
law with odds w. It conditions on s, so an outage of both arms proves nothing, and the rate of the
baseline need not be known. (The safe logrank test, ter Schure, Pérez-Ortiz, Ly & Grünwald 2020,
arXiv 2011.06931, bets the same way on risk sets; Turner, Ly & Grünwald 2024, "Generic E-variables
for exact sequential k-sample tests", treat the unconditional case.)

**The capital.** A gambler spreads 1 over several w and over not betting; block by block each part
is multiplied by its e, and a small share of what lies idle goes to the bets, so that a harm that
starts late is found too (fixed share: Herbster & Warmuth 1998; betting: Waudby-Smith & Ramdas
2024, JRSS-B 86(1)). The sum stays a nonnegative supermartingale from 1, so by Ville's inequality
(1939; Howard et al. 2021, Annals of Statistics 49(2)) it ever reaches 1/a with probability <= a.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ODDS = (1.7, 3.0, 6.0, 12.0, 40.0)  # the bets: how many times likelier the canary is to be bad
IDLE = 0.1  # share of the capital that does not bet at first
AWAKEN = 0.02  # share of the idle capital that joins the bets after each block
MIN_BLOCK, MAX_BLOCK = 8, 400  # requests, each another user's
PATIENCE = 4  # a block waits for its users over so many times as many requests
NOBODY = -1  # the user of a request that names none
CANARY_PER_BLOCK = 2  # aimed at, on average
THRESHOLD_WINDOW = 500  # baseline requests that a latency threshold is taken from
Z80 = 0.8416  # the 80th percentile of the normal law
_LOG_MAX = 690.0

_LOG_FACTORIAL = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, MAX_BLOCK + 1)))))

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Cut(NamedTuple):
    """Blocks of requests: shapes (M,) and (B,)."""

    kept: Ints  # the places of the requests that are in one, in order
    ends: Ints  # where blocks end (exclusive), counted in those


def cut(canary: Bools, user: Ints | None = None, per_block: int = CANARY_PER_BLOCK) -> Cut:
    """Return the blocks of requests in order; `canary` and `user` have shape (N,).

    A user keeps one arm, and what one asks in a minute is fast or slow together: were all of it
    counted, the arms would not be dealt by request. So a block takes one request of each user
    (by lot), and ends when it has as many users as it wants, or after `PATIENCE` times as many
    requests. Where `user` is NOBODY, or no users are given, each request is somebody else's.

    How many it wants is set from the canary's share before it, never from outcomes, so that
    arms inside a block stay as random as the router made them. It aims at `per_block` of the
    canary's.
    """
    asked = _told_apart(len(canary), user)
    before = _place_before(asked)
    lot = np.random.default_rng(0).random(len(canary))
    kept: list[Ints] = []
    ends: list[int] = []
    ours, taken, start = 0, 0, 0
    while True:
        size = int(np.clip(np.ceil(per_block * (taken + 4.0) / (ours + 1.0)), MIN_BLOCK, MAX_BLOCK))
        most = PATIENCE * size
        users = np.cumsum(before[start : start + most] < start)  # so far in this block
        last = int(np.searchsorted(users, size))
        if last == len(users):
            if last < most:
                break
            last -= 1
        block = start + _one_of_each(asked[start : start + last + 1], lot[start : start + last + 1])
        kept.append(block)
        ours += int(canary[block].sum())
        taken += len(block)
        ends.append(taken)
        start += last + 1
    none = np.zeros(0, dtype=np.int64)
    return Cut(np.concatenate([none, *kept]), np.array(ends, dtype=np.int64))


def _told_apart(count: int, user: Ints | None) -> Ints:
    """Return users whose nobodies differ from each other; shape (N,)."""
    each = -1 - np.arange(count)
    return each if user is None else np.where(user == NOBODY, each, user)


def _place_before(user: Ints) -> Ints:
    """Return where each request's user was last seen before it, -1 if never; shape (N,)."""
    order = np.argsort(user, kind="stable")
    again = np.flatnonzero(user[order][1:] == user[order][:-1])
    found = np.full(len(user), -1)
    found[order[again + 1]] = order[again]
    return found


def _one_of_each(user: Ints, lot: Floats) -> Ints:
    """Return the places of one request of each user, that with the highest lot, in order."""
    order = np.lexsort((lot, user))
    last = np.ones(len(order), dtype=np.bool_)
    last[:-1] = user[order][1:] != user[order][:-1]
    return np.sort(order[last])


def block_sums(values: NDArray[Any], ends: Ints) -> NDArray[Any]:
    """Return the sum of `values` in each block, or how many hold; shapes (N,), (B,) -> (B,)."""
    running = np.concatenate(([0], np.cumsum(values)))
    return np.diff(running[np.concatenate(([0], ends))])


def shown(log_e: float) -> float:
    """Return an e-value from its logarithm, cut where a float would end."""
    return float(np.exp(min(log_e, _LOG_MAX)))


def log_tilted_means(n: Ints, s: Ints, n_c: Ints) -> Floats:
    """Return log E[w^J], J ~ Hypergeometric(n, s, n_c), for every w of ODDS; (B,) -> (W, B)."""
    if len(n) == 0:
        return np.zeros((len(ODDS), 0))
    top = int(np.minimum(s, n_c).max())
    j = np.arange(top + 1)[:, None]  # (J, 1)
    inside = (j <= s) & (j <= n_c) & (s - j <= n - n_c)
    ways = np.full(inside.shape, -np.inf)
    columns = np.broadcast_to(np.arange(len(n)), inside.shape)[inside]
    rows = np.broadcast_to(j, inside.shape)[inside]
    cn, cs, cc = n[columns], s[columns], n_c[columns]
    ways[inside] = _log_choose(cc, rows) + _log_choose(cn - cc, cs - rows) - _log_choose(cn, cs)
    return np.stack([np.logaddexp.reduce(ways + j * np.log(w), axis=0) for w in ODDS])


def _log_choose(n: Ints, k: Ints) -> Floats:
    return np.asarray(_LOG_FACTORIAL[n] - _LOG_FACTORIAL[k] - _LOG_FACTORIAL[n - k])


def log_capital(log_e: Floats) -> Floats:
    """Return the gambler's log capital after each block; shape (W, B) -> (B,)."""
    bets, blocks = log_e.shape
    parts = np.full(bets, (1 - IDLE) / bets)
    idle, scale = IDLE, 0.0  # everything is kept divided by exp(scale), so nothing overflows
    path = np.empty(blocks)
    for block, step in enumerate(log_e.T):
        most = max(float(step.max()), 0.0)
        parts *= np.exp(step - most)
        idle *= float(np.exp(-most))
        total = float(parts.sum()) + idle
        scale += most + float(np.log(total))
        path[block] = scale
        parts /= total
        idle /= total
        parts += idle * AWAKEN / bets
        idle *= 1 - AWAKEN
    return path


def share_test(bad: Bools, canary: Bools, ends: Ints) -> Floats:
    """Return the log e-process of "canary requests are bad no more often"; shape (B,)."""
    n = np.diff(np.concatenate(([0], ends)))
    n_c, s = block_sums(canary, ends), block_sums(bad, ends)
    k = block_sums(bad & canary, ends)
    log_e = np.log(ODDS)[:, None] * k - log_tilted_means(n, s, n_c)
    return log_capital(log_e)


def expected_bad(bad: Bools, canary: Bools, ends: Ints) -> float:
    """Return how many bad canary requests equal arms would have: the sum of s n_c / n."""
    n = np.diff(np.concatenate(([0], ends)))
    return float((block_sums(bad, ends) * block_sums(canary, ends) / np.maximum(n, 1)).sum())


def rate_test(bad: Bools, limit: float) -> Floats:
    """Return the log e-process of "the rate of bad requests is at most `limit`"; shape (N,).

    Each request multiplies a part by w^bad / (1 + limit (w - 1)).
    """
    odds = np.array(ODDS)[:, None]
    return log_capital(bad * np.log(odds) - np.log1p(limit * (odds - 1)))


def thresholds(
    latency: Floats, canary: Bools, ends: Ints, quantiles: tuple[float, ...], history: Floats
) -> Floats:
    """Return the latency thresholds of each request's block; shape (N,) -> (Q, N).

    They are the baseline's `quantiles` over its last 500 requests before the block (`history`:
    those before the rollout), infinite until there are 0.5 / (1 - q), at least 20. Known
    before the block, so an error in them costs power, never validity.
    """
    found = np.full((len(quantiles), len(latency)), np.inf)
    stable = np.concatenate((history, latency[~canary]))
    before = len(history) + np.concatenate(([0], np.cumsum(~canary)))
    start = 0
    for end in ends:
        known = int(before[start])
        window = np.sort(stable[max(0, known - THRESHOLD_WINDOW) : known])
        for row, q in enumerate(quantiles):
            if known >= max(20, 0.5 / (1 - q)):
                found[row, start:end] = window[int(np.ceil(q * (len(window) - 1)))]
        start = int(end)
    return found
