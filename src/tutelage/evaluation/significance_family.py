"""Several tests at once: Holm's correction, so that one of many does not look sure by luck.

Needed where *one* good result out of several would be believed: several metrics, topics, or
candidates side by side. Not needed where *all* must hold, as for the gate's criteria: a bad model
then has to be lucky in each of them (an intersection-union test, Berger 1982).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Corrected:
    """A p-value alone and within its family; `sure` is whether the latter is small enough."""

    p: float
    p_holm: float
    sure: bool


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given (Scand. J. Stat. 1979, 6:65)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def corrected(family: Mapping[str, float], confidence: float = 0.95) -> dict[str, Corrected]:
    """Return each test of a family by name; the chance of any false `sure` is 1 − confidence."""
    adjusted = holm(list(family.values()))
    return {
        name: Corrected(p, q, q <= 1 - confidence)
        for (name, p), q in zip(family.items(), adjusted, strict=True)
    }
