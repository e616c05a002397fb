"""What a criterion may name besides the scorers' metrics: refusals, latency, tokens, a cost.

Each is one value a row, read from the answer itself, and less of it is better. Latencies are
judged by a quantile, everything else by its mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tutelage.data.filters.refusal import is_refusal
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scoring import Scored
from tutelage.evaluation.significance import (
    Difference,
    Interval,
    bootstrap_ratio,
    mean_interval,
    paired_difference,
)
from tutelage.evaluation.usage import BATCHES

Array = NDArray[np.float64]
ALONE_P50 = "alone_p50"
REFUSALS, COST = "refusals", "cost"  # the cost is a score, where there are prices


@dataclass(frozen=True)
class Measure:
    """One quantity of an answer. `quantile` None: its mean counts; `unit` follows a figure."""

    value: Callable[[RowResult], float | None]
    quantile: float | None = None
    unit: str = ""


def _latency(row: RowResult) -> float | None:
    return row.latency_ms if row.latency_ms > 0 else None


MEASURES: Mapping[str, Measure] = {
    REFUSALS: Measure(lambda row: float(is_refusal(row.text))),
    "latency_p50": Measure(_latency, 0.5, " ms"),
    "latency_p95": Measure(_latency, 0.95, " ms"),
    "latency_p99": Measure(_latency, 0.99, " ms"),
    "first_token_p50": Measure(lambda row: row.first_token_ms, 0.5, " ms"),
    "first_token_p95": Measure(lambda row: row.first_token_ms, 0.95, " ms"),
    ALONE_P50: Measure(lambda row: row.detail.get("alone_ms"), 0.5, " ms"),  # one at a time
    "tokens": Measure(lambda row: float(row.completion_tokens), None, " tokens"),
}


def is_rate(metric: str) -> bool:
    """Return whether the metric is told in percent and points."""
    return metric == REFUSALS or not lower_is_better(metric)


def lower_is_better(metric: str) -> bool:
    """Return whether less of the metric is better."""
    return metric in MEASURES or metric == COST


def quantile_of(metric: str) -> float | None:
    """Return the quantile by which the metric is judged; None: by its mean."""
    return MEASURES[metric].quantile if metric in MEASURES else None


def told(metric: str, value: float) -> str:
    """Return a value as people say it: 71.4 %, 132 ms, 7.2 tokens."""
    if is_rate(metric):
        return f"{value * 100:.1f} %"
    unit = MEASURES[metric].unit if metric in MEASURES else ""
    return f"{value:.0f}{unit}" if quantile_of(metric) is not None else f"{value:.4g}{unit}"


def has(scored: Scored, metric: str) -> bool:
    """Return whether the candidate has a value of the metric on any row."""
    return any(value is not None for value in values(scored, metric).values())


def values(scored: Scored, metric: str) -> dict[str, float | None]:
    """Return the candidate's value of each example by its id; None: it has none."""
    if metric in scored.scores:
        return {item: score.value for item, score in scored.scores[metric].items()}
    measure = MEASURES.get(metric)
    if measure is None:
        return {}
    return {
        item: None if row.failed or row.finish == "chosen" else measure.value(row)
        for item, row in scored.rows.items()
    }


@dataclass(frozen=True)
class Pairs:
    """Two candidates' values of a metric over the rows that both have, and what belongs together.

    Answers of one batch took their time together: for latency a batch is a cluster.
    """

    ours: Array  # (rows,)
    theirs: Array  # (rows,)
    clusters: tuple[object, ...]

    @classmethod
    def of(cls, ours: Scored, theirs: Scored, metric: str, clusters: Mapping[str, str]) -> Pairs:
        """Pair the rows in the order of `clusters`, which maps example ids to clusters."""
        left, right = values(ours, metric), values(theirs, metric)
        found = [
            (a, b, _group(ours, metric, item, cluster))
            for item, cluster in clusters.items()
            if (a := left.get(item)) is not None and (b := right.get(item)) is not None
        ]
        return cls(
            np.array([a for a, _, _ in found], dtype=float),
            np.array([b for _, b, _ in found], dtype=float),
            tuple(cluster for _, _, cluster in found),
        )

    def gain(self, metric: str, *, confidence: float, seed: int = 0) -> Difference:
        """Return how much better ours are, in the metric's unit: theirs − ours if less is better.

        For what is judged by a quantile this is the difference of means all the same.
        """
        a, b = (self.theirs, self.ours) if lower_is_better(metric) else (self.ours, self.theirs)
        return paired_difference(a, b, clusters=self.clusters, confidence=confidence, seed=seed)

    def ratio(self, metric: str, *, confidence: float, seed: int = 0) -> Interval:
        """Return ours over theirs, of the quantile or of the mean; without limits (0, inf) where
        too few batches tell no spread.
        """
        found = bootstrap_ratio(
            self.ours, self.theirs, _statistic(metric),
            clusters=self.clusters, confidence=confidence, seed=seed,
        )  # fmt: skip
        return _honest(found, metric, self.clusters)


def level(
    scored: Scored, metric: str, clusters: Mapping[str, str], *, confidence: float, seed: int = 0
) -> Interval:
    """Return the candidate's mean, or quantile, of the metric with its interval.

    A quantile has no limits (0, inf) where too few batches tell no spread.
    """
    given, timed = values(scored, metric), quantile_of(metric) is not None
    found = [
        (value, _group(scored, metric, item, cluster))
        for item, cluster in clusters.items()
        if (value := given.get(item)) is not None
    ]
    kept, groups = [value for value, _ in found], [group for _, group in found]
    if not timed:
        return mean_interval(kept, clusters=groups, confidence=confidence, seed=seed)
    ratio = bootstrap_ratio(
        kept, np.ones(len(kept)), _statistic(metric),
        clusters=groups, confidence=confidence, seed=seed,
    )  # fmt: skip
    return _honest(ratio, metric, groups)


def _group(scored: Scored, metric: str, item: str, cluster: str) -> object:
    """Return what a row's value stands or falls with: its batch, if it was timed in one."""
    if metric == ALONE_P50:
        return item
    return scored.rows[item].batch if quantile_of(metric) is not None else cluster


def _honest(found: Interval, metric: str, groups: Sequence[object]) -> Interval:
    if quantile_of(metric) is None or len(set(groups)) >= BATCHES:
        return found
    return replace(found, low=0.0, high=math.inf)


def _statistic(metric: str) -> Callable[[Array], Array]:
    quantile = quantile_of(metric)
    if quantile is None:
        return lambda drawn: np.asarray(drawn.mean(axis=1))
    return lambda drawn: np.asarray(np.quantile(drawn, quantile, axis=1))
