"""From what was seen to what more rows would show: rows needed, and the power of a whole gate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tutelage.evaluation.significance import Difference
from tutelage.evaluation.significance_power import POWER, power_of_mean, power_of_rate, rows_needed


def rows_for(
    seen: Difference, effect: float, *, confidence: float = 0.95, power: float = POWER
) -> int:
    """Return how many rows like those seen show a true difference of `effect`, clusters included.

    Raises ValueError if effect is not above 0 or nothing was seen.
    """
    if seen.n == 0:
        raise ValueError("without a row nothing is known about how much rows differ")
    if seen.rate:
        share = max(1, seen.wins + seen.losses) / seen.n
        return rows_needed(
            effect, discordance=share, design_effect=seen.n / seen.worth,
            confidence=confidence, power=power,
        )  # fmt: skip
    spread = seen.se * math.sqrt(seen.n)  # what clusters add is in the standard error
    return rows_needed(effect, sd=spread, confidence=confidence, power=power)


def power_for(seen: Difference, effect: float, *, confidence: float = 0.95) -> float:
    """Return the chance that another set like the one seen shows `effect` to be above 0."""
    if seen.n == 0 or seen.clusters < 2:
        return 0.0
    if seen.rate:
        share = (seen.wins + seen.losses) / seen.n
        return power_of_rate(effect, seen.worth, share, confidence)
    return power_of_mean(
        effect, seen.n, seen.se * math.sqrt(seen.n), confidence, df=seen.df
    )  # fmt: skip


def gate_power(powers: Sequence[float]) -> tuple[float, float]:
    """Return at least and at most how often all criteria pass together, given how often each does.

    Criteria read the same rows and so hang together; these bounds hold however they do (Fréchet).
    """
    missed = sum(1 - power for power in powers)
    return max(0.0, 1 - missed), min(powers, default=1.0)
