"""What a rollout could not have seen: the smallest harm that its requests would have shown.

For each test the smallest effect it finds in at least 80 % of runs, from the blocks as they were.
In words, for the journal: a promotion says what it does not promise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.core.config import Limits
from tutelage.release import sequential as seq
from tutelage.release.arms import ArmLog, Merged, ScoreLog, at_own_pace
from tutelage.release.means import ScoreBlocks, drop_seen

_STEPS = 30  # halvings

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    """Sizes of the blocks of requests: arrays of length B."""

    baseline: NDArray[np.int64]
    canary: NDArray[np.int64]

    @classmethod
    def of(cls, canary: NDArray[np.bool_], user: NDArray[np.int64] | None = None) -> Blocks:
        """Return the blocks that the tests cut requests into."""
        kept, ends = seq.cut(canary, user)
        ours = seq.block_sums(canary[kept], ends)
        return cls(np.diff(np.concatenate(([0], ends))) - ours, ours)


def rate_seen(blocks: Blocks, base: float, log_threshold: float) -> float:
    """Return the smallest rate of bad canary requests that a share test finds, at most 1.

    `base` is the baseline's rate. With s bad requests in a block, binomial over the arms, the
    bet w gains k log w - s log(1 + f (w - 1)), f the canary's share of the block: its mean and
    variance are those of two Poisson counts. Found means: the best bet's mean gain, less 0.84
    standard deviations, reaches the threshold and the price of betting on several.
    """
    goal = log_threshold + np.log(len(seq.ODDS) / (1 - seq.IDLE))
    if len(blocks.canary) == 0 or _gain(blocks, base, 1.0) < goal:
        return 1.0
    low, high = base, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if _gain(blocks, base, middle) >= goal else (middle, high)
    return high


def _gain(blocks: Blocks, base: float, rate: float) -> float:
    share = blocks.canary / np.maximum(blocks.canary + blocks.baseline, 1)
    w = np.array(seq.ODDS)[:, None]  # (W, 1)
    cost = np.log1p(share * (w - 1))  # (W, B)
    ours, theirs = blocks.canary * rate, blocks.baseline * base
    mean = (ours * (np.log(w) - cost) - theirs * cost).sum(axis=1)
    variance = (ours * (np.log(w) - cost) ** 2 + theirs * cost**2).sum(axis=1)
    return float((mean - seq.Z80 * np.sqrt(variance)).max())


def slowdown_seen(now: Merged, blocks: Blocks, limits: Limits, log_threshold: float) -> float:
    """Return the smallest factor on every latency that a latency test finds; inf if none is."""
    stable = np.sort(now.latency[~now.canary & ~now.failed])
    if len(stable) < 20:
        return float("inf")
    factors = []
    for q in (0.5, 0.9, 0.99):
        limit = float(np.quantile(stable, q))
        wanted = rate_seen(blocks, 1 - q, log_threshold)
        if wanted < 1:
            factors.append(
                limits.latency * limit / max(float(np.quantile(stable, 1 - wanted)), 1e-9)
            )
    return min(factors, default=float("inf"))


def unseen(
    baseline: ArmLog, canary: ArmLog, limits: Limits, scores: ScoreLog, tests: int
) -> list[str]:
    """Return one sentence for each kind of harm: what would have stayed hidden, or that all would.

    `tests` is among how many the false-alarm rate is shared.
    """
    threshold = float(np.log(tests / limits.alpha))
    now = Merged.of(*at_own_pace(baseline, canary), 1.0)
    blocks = Blocks.of(now.canary, now.user)
    beside = int(((blocks.baseline > 0) & (blocks.canary > 0)).sum())
    if beside == 0:
        return [
            "no request of the stable release ran beside the candidate's: of latency, checks and "
            "errors only a rate of errors over the limit was looked for",
            *_scores(scores, threshold),
        ]
    slow = slowdown_seen(now, blocks, limits, threshold)
    return [
        f"latency: {_slower(slow)}",
        f"errors: {_rate(now.failed, now.canary, blocks, threshold)}",
        f"checks: {_rate(now.flagged, now.canary, blocks, threshold)}",
        *_scores(scores, threshold),
    ]


def memory_unseen(before: Mapping[str, float] | None) -> list[str]:
    """Return a sentence if the engine tells nothing of its memory (routes.memory_before)."""
    if before is not None:
        return []
    return [
        "memory: the engine does not tell how full it is, so a full one would not have been seen"
    ]


def _slower(factor: float) -> str:
    if not np.isfinite(factor):
        return "no slowdown could have been seen with so few requests"
    return f"a slowdown of all requests under {factor:.2f} ×"


def _rate(
    bad: NDArray[np.bool_], canary: NDArray[np.bool_], blocks: Blocks, threshold: float
) -> str:
    others = bad[~canary]
    base = float(others.mean()) if len(others) else 0.0
    seen = rate_seen(blocks, max(base, 0.5 / max(len(others), 1)), threshold)
    if seen >= 1:
        return "no rise could have been seen with so few requests"
    return f"a rate under {seen * 100:.1f} % (stable: {base * 100:.1f} %)"


def _scores(scores: ScoreLog, threshold: float) -> list[str]:
    if not scores:
        return ["quality: nothing scores live answers, so no drop in quality could have been seen"]
    found = []
    for metric, log in scores.items():
        blocks = ScoreBlocks.of(log)
        drop = drop_seen(blocks.information, blocks.sd, threshold)
        count = int(log.canary.sum())
        hidden = "no drop could have been seen" if drop >= 1 else f"a drop under {100 * drop:.1f}"
        unit = "" if drop >= 1 else " points"
        found.append(f"quality: {hidden}{unit} in {metric} ({count} candidate answers scored)")
    return found
