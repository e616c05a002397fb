"""Not worse by more than a margin: the non-inferiority test of a paired difference.

The candidate is taken for worse by the margin until the rows show otherwise. With a two-sided
interval of 95 % the chance to pass a candidate that is exactly that much worse is 2.5 %, as in
clinical trials (CONSORT extension, Piaggio et al., JAMA 2012, 308:2594).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tutelage.evaluation.criterion import Outcome, within
from tutelage.evaluation.significance import Difference, paired_difference, tango_statistic


@dataclass(frozen=True)
class NonInferiority:
    """a − b against −margin: `p` is one-sided, small where the loss is surely within the margin."""

    difference: Difference
    margin: float
    p: float
    outcome: Outcome


def non_inferior(
    a: ArrayLike,
    b: ArrayLike,
    margin: float,
    *,
    clusters: Sequence[object] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> NonInferiority:
    """Return whether a is at most `margin` worse than b, in mean score over the same rows.

    The outcome is pass if the whole interval of a − b lies above −margin, fail if it lies below,
    else not enough evidence. p is the score test's for 0/1 scores, Student's for graded ones.
    Raises ValueError if the margin is below 0.
    """
    if margin < 0:
        raise ValueError(f"a margin is at least 0, not {margin:g}")
    d = paired_difference(a, b, clusters=clusters, confidence=confidence, seed=seed)
    return NonInferiority(d, margin, _p_worse(d, margin), within(-d.high, -d.low, margin))


def _p_worse(d: Difference, margin: float) -> float:
    """Return the chance of so good a difference if the true one were −margin."""
    if d.n == 0 or d.clusters < 2:
        return 1.0
    if d.rate:
        share = d.worth / d.n
        statistic = tango_statistic(-margin, d.wins * share, d.losses * share, d.worth)
        return 0.5 * math.erfc(statistic / math.sqrt(2))
    if d.se == 0:
        return 0.0 if d.estimate > -margin else 1.0
    from scipy.special import stdtr

    return 1.0 - float(np.float64(stdtr(d.df, (d.estimate + margin) / d.se)))
