"""What tuning cost in general ability: plain knowledge questions and general English, before and
after, by likelihood. No text is generated and no outside data is needed.

Why the gate reads the *chance of the right answer* and not the count of right answers: over some
130 questions a count moves by whole answers, and only about 8 % of them change sides, so a loss of
2 points could be told from none with barely 20 % power. The chance (probability of the right
choice among the four, averaged) moves on every question, by little, and needs a tenth of the
rows. The count is reported beside it and can still fail the gate if it drops for certain.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.runner import TextScorer
from tutelage.evaluation.significance import (
    ROUNDS,
    Difference,
    Interval,
    detectable_difference,
    paired_difference,
)


@dataclass(frozen=True)
class Probe:
    """One question as an unfinished sentence; the first choice is right."""

    topic: str
    stem: str
    choices: tuple[str, ...]

    @property
    def right(self) -> str:
        """The sentence as it should end."""
        return f"{self.stem} {self.choices[0]}"


@dataclass(frozen=True)
class ProbeResult:
    """One model's marks: `chances` is (probes, choices), each row sums to 1."""

    chances: list[list[float]]
    nll: list[float]  # nats a general text
    tokens: list[int]  # tokens each is summed over

    @property
    def right(self) -> NDArray[np.float64]:
        """Probability of the right choice, shape (probes,)."""
        return np.array([row[0] for row in self.chances])

    @property
    def hits(self) -> NDArray[np.float64]:
        """1 where the right choice is the likeliest, shape (probes,)."""
        return np.array([float(row[0] > max(row[1:])) for row in self.chances])

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Forgetting:
    """Base against tuned. Drops are base − tuned in ratios: positive means something was lost."""

    base_accuracy: Interval
    tuned_accuracy: Interval
    accuracy_drop: Difference
    base_chance: float
    tuned_chance: float
    chance_drop: Difference
    base_perplexity: float
    tuned_perplexity: float
    perplexity_ratio: Interval
    perplexity_detectable: float  # smallest ratio above 1 found with 80 % power
    lost: list[dict[str, Any]]
    gained: list[dict[str, Any]]

    @property
    def number(self) -> float:
        """The headline: loss of probe accuracy, a ratio, never below 0."""
        return max(0.0, self.accuracy_drop.estimate)


@cache
def probes() -> tuple[Probe, ...]:
    """Return the built-in questions."""
    items = json.loads(_read("general.json"))["items"]
    return tuple(Probe(i["topic"], i["stem"], tuple(i["choices"])) for i in items)


@cache
def texts() -> tuple[str, ...]:
    """Return the built-in general English."""
    return tuple(json.loads(_read("texts.json"))["texts"])


def _read(name: str) -> str:
    return (files("tutelage.evaluation") / "probes" / name).read_text(encoding="utf-8")


def measure(engine: TextScorer) -> ProbeResult:
    """Return a model's marks on the built-in probes and texts.

    A choice's weight is the likelihood of the whole sentence; the stem's part cancels out.
    """
    sentences = [f"{p.stem} {choice}." for p in probes() for choice in p.choices]
    scored = list(engine.mean_nll([*sentences, *texts()]))
    chances: list[list[float]] = []
    position = 0
    for probe in probes():
        nll = np.array([scored[position + i][0] for i in range(len(probe.choices))])
        weights = np.exp(-(nll - nll.min()))
        chances.append([round(float(w), 6) for w in weights / weights.sum()])
        position += len(probe.choices)
    rest = scored[position:]
    return ProbeResult(chances, [float(s) for s, _ in rest], [int(n) for _, n in rest])


def compare(
    base: ProbeResult, tuned: ProbeResult, *, confidence: float = 0.95, seed: int = 0
) -> Forgetting:
    """Return what tuning changed, each with its paired bootstrap interval."""
    from tutelage.evaluation.significance import mean_interval

    ratio, detectable = _perplexity_ratio(base, tuned, confidence, seed)
    lost, gained = _changed(base, tuned)
    return Forgetting(
        base_accuracy=mean_interval(base.hits, confidence=confidence),
        tuned_accuracy=mean_interval(tuned.hits, confidence=confidence),
        accuracy_drop=paired_difference(base.hits, tuned.hits, confidence=confidence, seed=seed),
        base_chance=float(base.right.mean()),
        tuned_chance=float(tuned.right.mean()),
        chance_drop=paired_difference(base.right, tuned.right, confidence=confidence, seed=seed),
        base_perplexity=_perplexity(base.nll, base.tokens),
        tuned_perplexity=_perplexity(tuned.nll, tuned.tokens),
        perplexity_ratio=ratio,
        perplexity_detectable=detectable,
        lost=lost,
        gained=gained,
    )


def _perplexity(nll: Sequence[float], tokens: Sequence[int]) -> float:
    return math.exp(sum(nll) / max(1, sum(tokens)))


def _perplexity_ratio(
    base: ProbeResult, tuned: ProbeResult, confidence: float, seed: int
) -> tuple[Interval, float]:
    """Return the ratio of perplexities, texts drawn whole, and the smallest one detectable."""
    change = np.array(tuned.nll) - np.array(base.nll)
    tokens = np.array(base.tokens, dtype=float)
    count = len(tokens)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=ROUNDS)
    logs = (drawn @ change) / (drawn @ tokens)
    tail = (1 - confidence) / 2
    low, high = np.quantile(logs, [tail, 1 - tail])
    point = float(change.sum() / tokens.sum())
    detectable = math.exp(detectable_difference(float(logs.std()), confidence))
    return Interval(math.exp(point), math.exp(low), math.exp(high), count), detectable


def _changed(
    base: ProbeResult, tuned: ProbeResult
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the questions right before and wrong after, and the other way round."""
    lost: list[dict[str, Any]] = []
    gained: list[dict[str, Any]] = []
    for probe, before, after in zip(probes(), base.chances, tuned.chances, strict=True):
        was, now = before[0] > max(before[1:]), after[0] > max(after[1:])
        if was == now:
            continue
        chosen = after if was else before
        (lost if was else gained).append(
            {
                "topic": probe.topic,
                "stem": probe.stem,
                "right": probe.choices[0],
                "instead": probe.choices[max(range(len(chosen)), key=chosen.__getitem__)],
                "before": before[0],
                "after": after[0],
            }
        )
    return lost, gained
