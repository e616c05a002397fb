"""What answers take: time to the first token, a token, the whole answer; tokens; throughput.

Two situations are measured and never mixed. *In batches*, as the test rows are answered: a row
waits for the rows beside it, so these figures say what the machine gets through. *Alone*, one
request at a time on a sample (latency.py): what a single user waits. Measured, never estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.significance import Interval, bootstrap_ratio
from tutelage.evaluation.significance_cluster import cluster_codes

ALONE = ("alone_ms", "alone_first_ms", "alone_tokens", "alone_finish")  # keys of a row's detail
ROUNDS = 1000
BATCHES = 6  # drawn with replacement, fewer give intervals that are far too narrow
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_LEAST = {"p50": 1, "p95": 20, "p99": 100}  # measurements a quantile needs to be more than a guess

Array = NDArray[np.float64]
Limits = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Times:
    """Quantiles of one request at a time, in milliseconds; None where too few rows say it."""

    rows: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    first_token_p50_ms: float | None
    first_token_p95_ms: float | None
    first_token_p99_ms: float | None
    per_token_p50_ms: float | None
    per_token_p95_ms: float | None
    per_token_p99_ms: float | None
    tokens_per_second: float | None
    intervals: Limits = field(default_factory=dict)  # field → low, high


@dataclass(frozen=True)
class Usage:
    """One candidate's cost over the test rows, in batches. Times in milliseconds.

    `p50_ms` to `p99_ms` are whole answers, `first_token_…` the wait for the first token,
    `per_token_…` the time between tokens. `intervals` maps fields to limits, batches drawn whole.
    """

    rows: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    first_token_p50_ms: float | None
    per_token_ms: float | None  # all time over all tokens written
    prompt_tokens: float  # mean a row
    completion_tokens: float
    cut: int  # answers that ran into the token limit
    first_token_p95_ms: float | None = None
    first_token_p99_ms: float | None = None
    per_token_p50_ms: float | None = None
    per_token_p95_ms: float | None = None
    per_token_p99_ms: float | None = None
    cached_tokens: float = 0.0  # of the prompt, not computed again; mean a row
    batch_rows: float = 1.0  # rows that were answered together, on average
    rows_per_second: float | None = None
    tokens_per_second: float | None = None  # written
    intervals: Limits = field(default_factory=dict)
    alone: Times | None = None  # one request at a time, on a sample


def usage(rows: Sequence[RowResult], *, confidence: float = 0.95, seed: int = 0) -> Usage | None:
    """Return the cost of answers that were written; None if there are none."""
    rows = [row for row in rows if not row.failed]
    if not rows:
        return None
    batches = [row.batch for row in rows]
    times = np.array([row.latency_ms for row in rows])
    first = [row.first_token_ms for row in rows]
    gaps = [gap(row.latency_ms, row.first_token_ms, row.completion_tokens, row.finish)
            for row in rows]  # fmt: skip
    written = sum(row.completion_tokens for row in rows)
    seconds = wall_seconds(rows)
    drawn = _Draws(batches, confidence, seed)
    limits: Limits = {}
    points = drawn.quantiles("", times, limits)
    firsts = drawn.quantiles("first_token_", first, limits)
    between = drawn.quantiles("per_token_", gaps, limits)
    return Usage(
        rows=len(rows),
        p50_ms=points["p50"] or 0.0,
        p95_ms=points["p95"] or 0.0,
        p99_ms=points["p99"] or 0.0,
        first_token_p50_ms=firsts["p50"],
        per_token_ms=float(times.sum() / written) if written else None,
        prompt_tokens=_mean(row.prompt_tokens for row in rows),
        completion_tokens=written / len(rows),
        cut=sum(row.finish == "length" for row in rows),
        first_token_p95_ms=firsts["p95"],
        first_token_p99_ms=firsts["p99"],
        per_token_p50_ms=between["p50"],
        per_token_p95_ms=between["p95"],
        per_token_p99_ms=between["p99"],
        cached_tokens=_mean(row.cached_tokens for row in rows),
        batch_rows=len(rows) / len(set(batches)),
        rows_per_second=len(rows) / seconds if seconds > 0 else None,
        tokens_per_second=written / seconds if seconds > 0 else None,
        intervals=limits,
        alone=alone(rows, confidence=confidence, seed=seed),
    )


def alone(rows: Iterable[RowResult], *, confidence: float = 0.95, seed: int = 0) -> Times | None:
    """Return the times of rows that were asked one at a time too; None without any."""
    kept = [row for row in rows if ALONE[0] in row.detail]
    if not kept:
        return None
    details = [row.detail for row in kept]
    times = np.array([float(one[ALONE[0]]) for one in details])
    first = [one.get(ALONE[1]) for one in details]
    tokens = [int(one.get(ALONE[2], 0)) for one in details]
    gaps = [
        gap(float(one[ALONE[0]]), one.get(ALONE[1]), count, str(one.get(ALONE[3], "stop")))
        for one, count in zip(details, tokens, strict=True)
    ]
    drawn = _Draws(list(range(len(kept))), confidence, seed, careful=True)
    limits: Limits = {}
    points = drawn.quantiles("", times, limits)
    firsts = drawn.quantiles("first_token_", first, limits)
    between = drawn.quantiles("per_token_", gaps, limits)
    total = float(times.sum()) / 1000
    return Times(
        rows=len(kept),
        p50_ms=points["p50"],
        p95_ms=points["p95"],
        p99_ms=points["p99"],
        first_token_p50_ms=firsts["p50"],
        first_token_p95_ms=firsts["p95"],
        first_token_p99_ms=firsts["p99"],
        per_token_p50_ms=between["p50"],
        per_token_p95_ms=between["p95"],
        per_token_p99_ms=between["p99"],
        tokens_per_second=sum(tokens) / total if total > 0 else None,
        intervals=limits,
    )


def gap(latency_ms: float, first_ms: float | None, tokens: int, finish: str) -> float | None:
    """Return the mean time between two tokens of an answer; None with one token or none.

    An answer that ended by itself has one step more than it has tokens: the end was written too.
    """
    steps = tokens if finish == "stop" else tokens - 1
    return None if first_ms is None or steps < 1 else (latency_ms - first_ms) / steps


def wall_seconds(rows: Iterable[RowResult]) -> float:
    """Return how long all batches took, one after the other: each as long as its last row."""
    longest: dict[int, float] = {}
    for row in rows:
        longest[row.batch] = max(longest.get(row.batch, 0.0), row.latency_ms)
    return sum(longest.values()) / 1000


@dataclass(frozen=True)
class Slowdown:
    """How much longer answers take than the base model's; `alone`: asked one at a time."""

    ratio: Interval
    alone: bool = False


def slowdown(
    ours: Sequence[RowResult], base: Sequence[RowResult], *, confidence: float, seed: int
) -> Slowdown | None:
    """Return the ratio in batches where they are enough to tell its spread, else one at a time."""
    together = p95_ratio(ours, base, confidence=confidence, seed=seed)
    if together is not None:
        return Slowdown(together)
    apart = alone_ratio(ours, base, confidence=confidence, seed=seed)
    return Slowdown(apart, alone=True) if apart is not None else None


def p95_ratio(
    ours: Sequence[RowResult], base: Sequence[RowResult], *, confidence: float, seed: int
) -> Interval | None:
    """Return the ratio of 95th percentile latencies over rows that both answered, or None.

    Rows of one batch ran together, so batches are drawn whole; too few of them tell no spread.
    """
    before = {row.item: row.latency_ms for row in base if not row.failed}
    pairs = [
        (row.latency_ms, old, row.batch)
        for row in ours
        if not row.failed and (old := before.get(row.item)) is not None
    ]
    batches = [batch for _, _, batch in pairs]
    if len(set(batches)) < BATCHES or min(old for _, old, _ in pairs) <= 0:
        return None
    return bootstrap_ratio(
        [new for new, _, _ in pairs], [old for _, old, _ in pairs], _at(0.95),
        clusters=batches, confidence=confidence, seed=seed,
    )  # fmt: skip


def alone_ratio(
    ours: Sequence[RowResult], base: Sequence[RowResult], *, confidence: float, seed: int
) -> Interval | None:
    """Return the ratio of median latencies, one request at a time, over the same rows, or None.

    None too where fewer than 6 rows were timed.
    """
    key = ALONE[0]
    before = {row.item: float(row.detail[key]) for row in base if key in row.detail}
    pairs = [(float(row.detail[key]), before[row.item])
             for row in ours if key in row.detail and row.item in before]  # fmt: skip
    if len(pairs) < BATCHES or min(old for _, old in pairs) <= 0:
        return None
    return bootstrap_ratio(
        [new for new, _ in pairs], [old for _, old in pairs], _at(0.5),
        confidence=confidence, seed=seed,
    )  # fmt: skip


def _at(quantile: float) -> _Quantile:
    return _Quantile(quantile)


@dataclass(frozen=True)
class _Quantile:
    """A quantile of each row of an array (rounds, rows)."""

    share: float

    def __call__(self, values: Array) -> Array:
        return np.asarray(np.quantile(values, self.share, axis=1))


class _Draws:
    """Resamples of rows whose groups are drawn whole, shared by all quantiles of a candidate.

    `careful` gives no quantile that too few measurements can tell.
    """

    def __init__(
        self, groups: Sequence[int], confidence: float, seed: int, *, careful: bool = False
    ) -> None:
        self._codes = cluster_codes(groups, len(groups))
        count = int(self._codes.max()) + 1
        rng = np.random.default_rng(seed)
        self._drawn = rng.multinomial(count, np.full(count, 1 / count), size=ROUNDS)
        self._tail = (1 - confidence) / 2
        self._careful = careful

    def quantiles(
        self, prefix: str, values: Sequence[float | None] | Array, limits: Limits
    ) -> dict[str, float | None]:
        """Return p50, p95 and p99 of what is known; their intervals go into `limits`."""
        known = np.array([v is not None for v in values])
        found = np.array([v for v in values if v is not None], dtype=float)
        points: dict[str, float | None] = dict.fromkeys(_QUANTILES)
        if not len(found):
            return points
        order = np.argsort(found, kind="stable")
        weights = self._drawn[:, self._codes[known][order]].cumsum(axis=1)  # (rounds, rows)
        weights = weights[weights[:, -1] > 0]
        for name, share in _QUANTILES.items():
            if self._careful and len(found) < _LEAST[name]:
                continue
            points[name] = float(np.quantile(found, share))
            if len(set(self._codes[known])) < BATCHES:
                continue
            places = (weights < share * weights[:, -1:]).sum(axis=1)
            low, high = np.quantile(found[order][places], [self._tail, 1 - self._tail])
            limits[f"{prefix}{name}_ms"] = (float(low), float(high))
        return points


def _mean(values: Iterable[int]) -> float:
    return float(np.mean(list(values)))
