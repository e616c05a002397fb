"""Are the newest requests gathered somewhere that those before were not? E-values for that.

**The bet.** Put N requests together, m of them the newest. If nothing has changed, all could have
come in any order, so which m are the newest is a uniform draw. A region holds n of the N, chosen
without looking at who is new. How many of them are new, J, is then hypergeometric, and for w > 0

    e = w^J / E[w^J],   J ~ Hypergeometric(N, n, m)

has expectation 1 (the likelihood ratio of Fisher's noncentral law with odds w). So has the mean of
it over many regions and odds. Regions are the nearest 5, 10, 20, ... 320 requests of each request
(the spatial scan of Kulldorff 1997, over neighbours as in Friedman and Rafsky 1979), stretches of
a sorted number, or labels.

**Everything at once.** That finds what gathers in one place. Where all groups of requests gain or
lose a little, no region says much, but all of them do together: the requests are parted into
groups, again without looking at who is new, and group after group its J is hypergeometric given
the groups before it. The product of their e-values has expectation 1, and so has its mean over the
spread of the groups' log odds, one spread for all groups at a time.

Regions and groups are found once and asked about several m. Nothing here knows of texts, clocks or
thresholds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SIZES = (5, 10, 20, 40, 80, 160, 320)  # requests of a region
MORE = (1.7, 3.0, 6.0, 12.0, 40.0)  # odds by which a region gathers the newest
LESS = (0.6, 0.25)  # and by which it lacks it
SPREADS = (0.3, 0.6, 1.2)  # standard deviations of the groups' log odds, together
GROUPS = 100  # that texts are parted into, at most
_PARTINGS = 4  # k-means finds others from another start, and which tell most is not known
CLOSE, CLOSE_NEW = 1_500, 500  # old and new requests among which neighbours are looked for
_ROUNDS = 4  # of k-means: many rough partings see more than a few good ones
_FIT = 4_000  # rows that the groups are found on; all are parted by them
_MOST = 3  # a region holds at most a third of all

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_LOG_WEIGHTS = np.log(_WEIGHTS / _WEIGHTS.sum())

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Inside = Callable[[int, int], Ints]  # the places in a region, by its row and size


@dataclass(frozen=True)
class Scan:
    """The log e-value, and the places of the new requests in the region that says most.

    `gained` are those in all regions that gain, where regions part the requests.
    """

    log_e: float
    where: tuple[int, ...] = ()
    gained: tuple[int, ...] = ()


NOTHING = Scan(0.0)
Scans = list[Scan]


def near(vectors: NDArray[np.float32], newest: Sequence[int], rng: np.random.Generator) -> Scans:
    """Return what neighbours and groups say of the last m rows, for every m; unit rows (N, D).

    Groups are of all rows. Neighbours, which take the square of their number, are looked for among
    the last CLOSE_NEW rows and CLOSE of those before, drawn at random; a larger m has groups alone.
    """
    total = len(vectors)
    partings = [_grouped(vectors, rng) for _ in range(_PARTINGS)]
    found = {m: _mean([together(codes, m) for codes in partings]) for m in newest}
    few = [m for m in newest if m <= CLOSE_NEW]
    before = np.arange(max(0, total - CLOSE_NEW))
    if len(before) > CLOSE:
        before = np.sort(rng.choice(before, CLOSE, replace=False))
    some = np.concatenate((before, np.arange(max(0, total - CLOSE_NEW), total)))
    for m, scan in zip(few, _neighbours(vectors[some], few), strict=True):
        where = tuple(int(i) for i in some[list(scan.where)])
        told = Scan(scan.log_e, where, where)
        found[m] = _mean([told, found[m]])
    return [found[m] for m in newest]


def along(values: NDArray[np.generic], newest: Sequence[int], rng: np.random.Generator) -> Scans:
    """Return what the order of a number says, shape (N,); equal numbers come in random order."""
    total = len(values)
    sizes = [size for size in SIZES if size <= total // _MOST]
    order = np.lexsort((rng.random(total), values))

    def inside(row: int, size: int) -> Ints:
        start = min(row, total - size)
        return np.asarray(order[start : start + size])

    found = []
    for m in newest:
        running = np.concatenate(([0], np.cumsum(order >= total - m)))
        columns = []
        for size in sizes:  # windows that would stick out at the end are drawn back inside
            starts = np.minimum(np.arange(total), total - size)
            columns.append(running[starts + size] - running[starts])
        counts = np.stack(columns, axis=1) if sizes else np.zeros((total, 0), dtype=np.int64)
        found.append(_best(counts, sizes, total, m, inside))
    return found


def among(codes: Ints, newest: Sequence[int]) -> Scans:
    """Return what labels say, as whole numbers from 0, shape (N,)."""
    return [_mean([_one_label(codes, m), together(codes, m)]) for m in newest]


def _one_label(codes: Ints, m: int) -> Scan:
    """Return the mean over labels of what each says of the last m."""
    total = len(codes)
    if m >= total:
        return NOTHING
    sizes = np.bincount(codes)
    found = np.bincount(codes[total - m :], minlength=len(sizes))
    logs = [
        _bets(int(size), total, m, both=True)[:, count]
        for size, count in zip(sizes, found, strict=True)
        if size
    ]
    each = np.array([_log_mean(log) for log in logs])
    label = np.flatnonzero(sizes)[int(each.argmax())]
    return Scan(_log_mean(each), *_told(codes, m, label, found * total > sizes * m))


def together(codes: Ints, m: int) -> Scan:
    """Return what all groups say at once of the last m, whole numbers from 0, shape (N,)."""
    total, left = len(codes), m
    if m >= total:
        return NOTHING
    sizes = np.bincount(codes)
    found = np.bincount(codes[total - m :], minlength=len(sizes))
    rest, logs, telling = total, np.zeros(len(SPREADS)), np.full(len(sizes), -np.inf)
    for group, (size, count) in enumerate(zip(sizes.tolist(), found.tolist(), strict=True)):
        if not size:
            continue
        each = _odds_bet(size, rest, left, count)
        logs += each
        if count * total > size * m:
            telling[group] = each.max()
        rest, left = rest - size, left - count
    most = int(telling.argmax())
    return Scan(_log_mean(logs), *_told(codes, m, most, np.isfinite(telling)))


def _told(
    codes: Ints, m: int, most: int, gain: NDArray[np.bool_]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return which of the last m rows are of the code that says most, and of those that gain."""
    new = np.arange(len(codes) - m, len(codes))
    of = codes[new]
    return tuple(new[of == most].tolist()), tuple(new[gain[of] | (of == most)].tolist())


def _mean(scans: Sequence[Scan]) -> Scan:
    """Return the mean of e-values, with the place that the largest one names."""
    best = max(scans, key=lambda scan: scan.log_e)
    return Scan(_log_mean(np.array([scan.log_e for scan in scans])), best.where, best.gained)


def _neighbours(vectors: NDArray[np.float32], newest: Sequence[int]) -> Scans:
    """Return what the nearest of each row say of the last m rows, for every m."""
    total = len(vectors)
    sizes = [size for size in SIZES if size <= total // _MOST]
    if not sizes or not newest:
        return [NOTHING for _ in newest]
    order = _nearest(vectors, sizes[-1])
    found = []
    for m in newest:
        running = np.cumsum(order >= total - m, axis=1, dtype=np.int64)
        counts = running[:, np.array(sizes) - 1]  # (N, S)
        found.append(_best(counts, sizes, total, m, lambda row, size: order[row, :size]))
    return found


def _grouped(vectors: NDArray[np.float32], rng: np.random.Generator) -> Ints:
    """Return the group of each row, (N,), by k-means on rows in random order: it sees no time."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    some = rng.permutation(len(vectors))[:_FIT]
    count = min(GROUPS, max(2, len(vectors) // 15))
    seed = int(rng.integers(2**31))
    means = KMeans(count, init="random", n_init=1, max_iter=_ROUNDS, random_state=seed)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few rounds do
        means.fit(vectors[some])
        return np.asarray(means.predict(vectors), dtype=np.int64)


def _nearest(vectors: NDArray[np.float32], count: int) -> Ints:
    """Return the places of the nearest rows, itself among them, nearest first; (N, count)."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, 2.0)
    part = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
    rank = np.argsort(-np.take_along_axis(likeness, part, axis=1), axis=1, kind="stable")
    return np.asarray(np.take_along_axis(part, rank, axis=1), dtype=np.int64)


def _best(counts: Ints, sizes: Sequence[int], total: int, m: int, inside: Inside) -> Scan:
    """Return the mean over regions, shape (N, S), and the one that says most."""
    if not sizes or m >= total:
        return NOTHING
    logs = np.empty(counts.shape)
    for column, size in enumerate(sizes):
        table = _bets(size, total, m)  # (W, size + 1)
        mixed = _log_means(table)
        logs[:, column] = mixed[counts[:, column]]
    row, place = divmod(int(logs.argmax()), len(sizes))
    members = inside(row, sizes[place])
    where = tuple(int(i) for i in members if i >= total - m)
    return Scan(_log_mean(logs.ravel()), where, where)


@lru_cache(maxsize=4096)
def _bets(size: int, total: int, m: int, *, both: bool = False) -> Floats:
    """Return log e for every odds and every count of new ones in a region, (W, size + 1).

    Counts that can't be are -inf.
    """
    odds = np.log(np.array((*MORE, *LESS) if both else MORE))
    return _log_e(_log_chances(size, total, m), odds)


def _odds_bet(size: int, total: int, m: int, count: int) -> Floats:
    """Return log e of so many new ones in a region for every spread of log odds, (S,).

    Log odds are normal around 0: the mean over them is by Gauss-Hermite quadrature.
    """
    odds = np.outer(SPREADS, _NODES).ravel()
    gains = odds[:, None] * np.arange(size + 1)
    each = gains[:, count] - _log_sums(_log_chances(size, total, m) + gains, axis=1)
    return _log_sums(each.reshape(len(SPREADS), -1) + _LOG_WEIGHTS, axis=1)


def _log_e(ways: Floats, odds: Floats) -> Floats:
    """Return log e for every log odds (W,) and every count of new ones, (W, size + 1)."""
    gains = odds[:, None] * np.arange(len(ways))
    table = gains - _log_sums(ways + gains, axis=1)[:, None]
    table[:, ~np.isfinite(ways)] = -np.inf
    return np.asarray(table)


def _log_chances(size: int, total: int, m: int) -> Floats:
    """Return the log chance of every count of new ones in a region, (size + 1,); -inf for none."""
    logs = _log_factorials(total.bit_length())
    j = np.arange(size + 1)
    possible = (j <= m) & (size - j <= total - m)
    ways = np.full(size + 1, -np.inf)
    k = j[possible]

    def choose(n: int, r: Ints) -> Floats:
        return np.asarray(logs[n] - logs[r] - logs[n - r])

    ways[possible] = choose(m, k) + choose(total - m, size - k)
    return np.asarray(ways - _log_sums(ways, axis=0))


@lru_cache(maxsize=32)
def _log_factorials(bits: int) -> Floats:
    """Return log n! of every number of at most so many bits."""
    from scipy.special import gammaln

    return np.asarray(gammaln(np.arange(1 << bits) + 1.0))


def _log_means(logs: Floats) -> Floats:
    """Return the log of the mean over the first axis."""
    return np.asarray(_log_sums(logs, axis=0) - np.log(len(logs)))


def _log_mean(logs: Floats) -> float:
    return float(_log_sums(logs, axis=0) - np.log(len(logs)))


def _log_sums(logs: Floats, axis: int) -> Floats:
    """Return the log of the sum of exponentials over an axis; -inf where nothing is finite."""
    most = np.max(logs, axis=axis, keepdims=True)
    safe = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        found = np.log(np.exp(logs - safe).sum(axis=axis)) + np.squeeze(safe, axis=axis)
    return np.asarray(found)
