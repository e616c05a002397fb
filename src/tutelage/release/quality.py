"""What scores of live answers say of a candidate: worse, not worse by the limit, or not known yet.

A drop that is proven fails the candidate. A drop of `limits.score` or more must be excluded before
all traffic moves, where the scores that come have the power to exclude it; where they have not,
nothing waits for them, and the journal says what they could not have shown (power.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.core.config import Limits
from tutelage.release import sequential as seq
from tutelage.release.arms import ScoreLog, Scores
from tutelage.release.means import ScoreBlocks, information_needed

_WARY = 0.5  # the share of the needed log evidence from which a step is no longer taken
_FIRST, _REST = 0.8, 0.2  # of the false-alarm rate: the first metric's, and what is left to others


@dataclass(frozen=True)
class ScoreTest:
    """One metric: log capitals and what they need, and how many scores a decision takes.

    `reachable` is how many canary scores will have come by `limits.score_requests` requests.
    """

    metric: str
    baseline: float | None  # mean score
    canary: float | None
    scored: int  # canary answers
    worse: tuple[float, float]  # now, peak
    excluded: float  # peak of the capital against a drop of `limit` or more
    threshold: float  # of `worse`, log
    exclusion: float  # of `excluded`, log
    limit: float
    needed: float  # canary scores that exclude such a drop in 80 % of runs of an equal candidate
    reachable: float

    @property
    def held(self) -> bool:
        """Whether a drop of `limit` or more is excluded."""
        return self.excluded >= self.exclusion

    @property
    def failed(self) -> bool:
        """Whether a drop is proven, and one of `limit` is not excluded."""
        return self.worse[1] >= self.threshold and not self.held

    @property
    def wary(self) -> bool:
        """Whether the scores lean against the candidate."""
        return self.worse[0] >= _WARY * self.threshold and not self.held

    @property
    def withheld(self) -> str:
        """Why all traffic has to wait for more scores; empty if it has not."""
        if self.held or self.needed > self.reachable:
            return ""
        return (
            f"{self.metric}: {self.scored} scored canary answers do not exclude a drop of "
            f"{100 * self.limit:g} points yet, about {self.needed:.0f} would"
        )

    def sentence(self) -> str:
        """Return what the scores say, with the evidence."""
        return (
            f"{self.metric}: the mean score of {self.scored} canary answers is "
            f"{self.canary:.3f}, that of stable's beside them {self.baseline:.3f} "
            f"(e = {seq.shown(self.worse[1]):.3g}, fails at {seq.shown(self.threshold):.3g})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for the journal."""
        return {
            "baseline": self.baseline,
            "canary": self.canary,
            "scored": self.scored,
            "e": seq.shown(self.worse[0]),
            "peak": seq.shown(self.worse[1]),
            "threshold": seq.shown(self.threshold),
            "excluded_drop": self.limit if self.held else None,
            "needed": round(self.needed),
        }


def score_tests(
    scores: ScoreLog, limits: Limits, tests: int, requests: int
) -> tuple[ScoreTest, ...]:
    """Return a test for each metric; `tests` share limits.alpha, these among them one share.

    `requests` canary requests have been seen. The first metric gets most of the share, a
    later one a fifth of what the one before it got: a metric that appears late changes
    nothing for the others.
    """
    found = []
    for rank, (metric, log) in enumerate(scores.items()):
        part = _FIRST * _REST**rank
        threshold = float(np.log(tests / (limits.alpha * part)))
        found.append(_test(metric, log, limits, threshold, requests))
    return tuple(found)


def _test(
    metric: str, scores: Scores, limits: Limits, threshold: float, requests: int
) -> ScoreTest:
    blocks = ScoreBlocks.of(scores)
    worse, within = blocks.worse(), blocks.within(limits.score)
    exclusion = float(np.log(1 / limits.alpha))
    scored = int(scores.canary.sum())
    each = blocks.information / scored if len(blocks) else 0.5  # of a canary score
    needed = information_needed(limits.score, blocks.sd, exclusion) / each
    return ScoreTest(
        metric=metric,
        baseline=_mean(scores, canary=False),
        canary=_mean(scores, canary=True),
        scored=scored,
        worse=(float(worse[-1]) if len(worse) else 0.0, float(worse.max(initial=0.0))),
        excluded=float(within.max(initial=0.0)),
        threshold=threshold,
        exclusion=exclusion,
        limit=limits.score,
        needed=needed,
        reachable=scored / max(requests, 1) * limits.score_requests,
    )


def _mean(scores: Scores, *, canary: bool) -> float | None:
    values = scores.value[scores.canary == canary]
    return round(float(values.mean()), 4) if len(values) else None
