"""What a test set can see: power, the smallest detectable difference, the rows an effect needs.

For 0/1 scores the power is exact, summed over the outcomes of the test that is really used: the
paired score test, whose border is where Tango's interval leaves 0. For graded scores it is that
of the paired t test. `effect` is a true mean difference, `discordance` the share of rows on which
the two candidates differ, `sd` the standard deviation of the differences row by row. An effect
larger than the discordance means that at least that many rows differ, all to one side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tutelage.evaluation.significance_cluster import t_score, z_score

POWER = 0.8


def power_of_rate(
    effect: float, n: float, discordance: float = 0.1, confidence: float = 0.95
) -> float:
    """Return the chance that `n` independent paired 0/1 rows show `effect` to be above 0."""
    from scipy.special import bdtrc, gammaln, xlog1py, xlogy

    rows = round(n)
    differ = min(1.0, max(discordance, abs(effect)))
    if rows < 1 or differ <= 0:
        return 0.0
    spread = 10 * math.sqrt(rows * differ * (1 - differ)) + 10
    k = np.arange(
        max(0, math.floor(rows * differ - spread)), min(rows, math.ceil(rows * differ + spread)) + 1
    )  # rows that differ
    chance = np.exp(
        gammaln(rows + 1) - gammaln(k + 1) - gammaln(rows - k + 1)
        + xlogy(k, differ) + xlog1py(rows - k, -differ)
    )  # fmt: skip
    z = z_score(0.5 + confidence / 2)
    enough = np.floor((k + z * np.sqrt(k)) / 2)  # more wins than this: (wins − losses) / √k > z
    share = (1 + effect / differ) / 2  # of the rows that differ, those won
    won = np.where(enough >= k, 0.0, bdtrc(np.minimum(enough, k), k, min(1.0, max(0.0, share))))
    return float(min(1.0, (chance * won).sum()))


def power_of_mean(
    effect: float, n: float, sd: float, confidence: float = 0.95, *, df: float | None = None
) -> float:
    """Return the chance that a two-sided t test on `n` differences shows `effect` above 0."""
    from scipy.special import nctdtr

    free = n - 1 if df is None else df
    if free <= 0 or n <= 0:
        return 0.0
    if sd <= 0:
        return 1.0 if effect > 0 else 0.0
    shift = effect * math.sqrt(n) / sd
    return 1.0 - float(nctdtr(free, shift, t_score(0.5 + confidence / 2, free)))


def detectable_rate(
    n: float, discordance: float = 0.1, confidence: float = 0.95, power: float = POWER
) -> float:
    """Return the smallest detectable paired difference of rates; infinity if there is none."""
    return _smallest(lambda effect: power_of_rate(effect, n, discordance, confidence), power)


def detectable_difference(
    se: float, confidence: float = 0.95, power: float = POWER, *, df: float = math.inf
) -> float:
    """Return the smallest true difference found with `power`, from a standard error and its df.

    With few degrees of freedom the standard error is itself uncertain, here and in the set that
    is to find the difference. Each has the relative variance 1 / 2df, so k standard errors are
    found if k − t = z·√(1 + (k² + t²) / 2df), with t and z the quantiles; k is the root of that.
    """
    t, z = t_score(0.5 + confidence / 2, df), z_score(power)
    if not math.isfinite(df):
        return (t + z) * se
    doubt = z * z / (2 * df) if df > 0 else 1.0
    if doubt >= 1:
        return math.inf
    left = 1 - doubt
    return (t + math.sqrt(t * t - left * (left * t * t - z * z))) / left * se


def rows_needed(
    effect: float,
    *,
    discordance: float | None = None,
    sd: float | None = None,
    design_effect: float = 1.0,
    confidence: float = 0.95,
    power: float = POWER,
) -> int:
    """Return how many test rows show a true difference of `effect` with `power`.

    Give `discordance` for 0/1 scores or `sd` for graded ones. Rows in clusters need
    `design_effect` times as many. Raises ValueError without either, or if effect is not above 0.
    """
    if effect <= 0 or (discordance is None) == (sd is None):
        raise ValueError("rows_needed takes an effect above 0, and either discordance or sd")

    def found(n: int) -> float:
        if discordance is not None:
            return power_of_rate(effect, n, discordance, confidence)
        return power_of_mean(effect, n, sd or 0.0, confidence)

    high = 4
    while found(high) < power:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if found(middle) < power else (low, middle)
    return math.ceil(high * max(1.0, design_effect))


def gate_power(powers: Sequence[float]) -> tuple[float, float]:
    """Return at least and at most how often all criteria pass together, given how often each does.

    Criteria read the same rows and so hang together; these bounds hold however they do (Fréchet).
    """
    missed = sum(1 - power for power in powers)
    return max(0.0, 1 - missed), min(powers, default=1.0)


def _smallest(power_at: Callable[[float], float], power: float) -> float:
    """Return the effect in 0..1 at which a rising power function reaches `power`."""
    from scipy.optimize import brentq

    if power_at(1.0) < power:
        return math.inf
    return float(brentq(lambda effect: power_at(effect) - power, 0.0, 1.0, xtol=1e-6))
