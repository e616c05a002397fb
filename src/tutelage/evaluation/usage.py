"""What answers cost: latency percentiles, time a token, tokens. Measured, never estimated.

Latencies are those of the evaluation's own engine, several rows at a time; the canary measures
them again in production.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.significance import Interval, bootstrap_ratio


@dataclass(frozen=True)
class Usage:
    """One candidate's cost over the test rows. Times in milliseconds."""

    rows: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    first_token_p50_ms: float | None
    per_token_ms: float | None  # all time over all tokens written
    prompt_tokens: float  # mean a row
    completion_tokens: float
    cut: int  # answers that ran into the token limit


def usage(rows: Sequence[RowResult]) -> Usage | None:
    """Return the cost of answers that were written; None if there are none."""
    rows = [row for row in rows if not row.failed]
    if not rows:
        return None
    times = np.array([row.latency_ms for row in rows])
    written = sum(row.completion_tokens for row in rows)
    first = [row.first_token_ms for row in rows if row.first_token_ms is not None]
    p50, p95, p99 = np.quantile(times, [0.5, 0.95, 0.99])
    return Usage(
        rows=len(rows),
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        first_token_p50_ms=float(np.median(first)) if first else None,
        per_token_ms=float(times.sum() / written) if written else None,
        prompt_tokens=float(np.mean([row.prompt_tokens for row in rows])),
        completion_tokens=written / len(rows),
        cut=sum(row.finish == "length" for row in rows),
    )


def p95_ratio(
    ours: Sequence[RowResult], base: Sequence[RowResult], *, confidence: float, seed: int
) -> Interval | None:
    """Return the ratio of 95th percentile latencies over rows that both answered, or None.

    Rows of one batch ran together, so batches are drawn whole.
    """
    before = {row.item: row for row in base if not row.failed}
    pairs = [(row, before[row.item]) for row in ours if not row.failed and row.item in before]
    if not pairs or min(old.latency_ms for _, old in pairs) <= 0:
        return None

    def p95(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.quantile(values, 0.95, axis=1))

    return bootstrap_ratio(
        [new.latency_ms for new, _ in pairs],
        [old.latency_ms for _, old in pairs],
        p95,
        clusters=[new.batch for new, _ in pairs],
        confidence=confidence,
        seed=seed,
    )
