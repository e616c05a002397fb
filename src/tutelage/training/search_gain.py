"""Whether what a search found is better than the plan, or only luckier.

Both are trained again with the same fresh seeds: the seed that the search ran with does not
count, for the winner was chosen on it. The differences of the pairs are judged by a one-sided
paired t-test (Student 1908).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

CONFIDENCE = 0.95
LEAST_GAIN = 0.01  # of the planned loss: tuned variants of LoRA lie within 1 to 2 % of each other


@dataclass(frozen=True)
class Pair:
    """The validation losses of the plan and of the best trial's settings with one seed."""

    seed: int
    planned: float
    best: float

    @property
    def gain(self) -> float:
        """How much lower the best settings' loss is."""
        return self.planned - self.best


@dataclass(frozen=True)
class Gain:
    """The mean gain over the pairs. `low` is its lower bound at 95 % confidence, `noise` the
    standard deviation of the plan's own loss from seed to seed, `share` the gain over that loss.
    """

    mean: float
    low: float
    noise: float
    share: float
    seeds: int

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


def gain_of(pairs: Sequence[Pair]) -> Gain | None:
    """Return what the pairs prove, or None with fewer than two."""
    from scipy.stats import t

    if len(pairs) < 2:
        return None
    gains = [pair.gain for pair in pairs]
    mean, spread = statistics.fmean(gains), statistics.stdev(gains)
    margin = float(t.ppf(CONFIDENCE, len(gains) - 1)) * spread / math.sqrt(len(gains))
    planned = [pair.planned for pair in pairs]
    usual = statistics.fmean(planned)
    return Gain(
        mean=mean,
        low=mean - margin,
        noise=statistics.stdev(planned),
        share=mean / usual if usual else 0.0,
        seeds=len(pairs),
    )


def decide(gain: Gain | None) -> tuple[bool, str]:
    """Return whether to take the best settings instead of the plan, and why in a sentence."""
    if gain is None:
        return False, (
            "the best settings were not repeated with at least two other seeds, so their gain may "
            "be luck: the plan stays"
        )
    figures = (
        f"lower by {gain.mean:.4f} on average over {gain.seeds} seeds, by at least {gain.low:.4f} "
        f"at {CONFIDENCE:.0%} confidence"
    )
    if gain.low <= 0:
        return False, f"the gain is within the noise ({figures}): the plan stays"
    if gain.share < LEAST_GAIN:
        return False, (
            f"the gain is real but {gain.share:.1%} of the loss, less than is worth a change "
            f"({figures}): the plan stays"
        )
    return True, f"the gain is {gain.share:.1%} of the loss and beyond the noise ({figures})"
