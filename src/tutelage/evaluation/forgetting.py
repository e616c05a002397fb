"""What tuning cost in general ability: plain knowledge questions and general English, before and
after, by likelihood. No text is generated and no outside data is needed; a project may add probes
and texts of its own.

Why the gate reads the *chance of the right answer* and not the count of right answers: over some
130 questions a count moves by whole answers, and only about 8 % of them change sides, so a loss of
2 points could be told from none with barely 20 % power. The chance (probability of the right
choice among the four, averaged) moves on every question, by little, and needs a tenth of the
rows. The count is reported beside it and can still fail the gate if it drops for certain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.forgetting_probes import Probe, ProbeSet, built_in
from tutelage.evaluation.runner import TextScorer
from tutelage.evaluation.significance import (
    Difference,
    Interval,
    mean_interval,
    paired_difference,
    token_mean,
)
from tutelage.evaluation.significance_family import corrected


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
class Drop:
    """What a set of probes lost, base − tuned in ratios: positive means lost. None: has none."""

    name: str
    base_chance: float | None
    tuned_chance: float | None
    chance_drop: Difference | None
    accuracy_drop: Difference | None
    perplexity_ratio: Interval | None
    perplexity_detectable: float | None
    lost: list[dict[str, Any]]
    gained: list[dict[str, Any]]


@dataclass(frozen=True)
class Forgetting:
    """Base against tuned. Drops are base − tuned in ratios: positive means something was lost.

    `kl` is the KL divergence from base to tuned in nats a token of the built-in texts, `topics`
    the change by topic of the built-in questions, `own` what the project's own probes say, and
    `further` the figures of `own`, flat, for tables.
    """

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
    kl: Interval | None = None
    kl_detectable: float | None = None
    topics: list[dict[str, Any]] = field(default_factory=list)
    own: list[Drop] = field(default_factory=list)
    further: list[dict[str, Any]] = field(default_factory=list)

    @property
    def number(self) -> float:
        """The headline: loss of probe accuracy, a ratio, never below 0."""
        return max(0.0, self.accuracy_drop.estimate)


def probes() -> tuple[Probe, ...]:
    """Return the built-in questions."""
    return built_in().probes


def texts() -> tuple[str, ...]:
    """Return the built-in general English."""
    return built_in().texts


def measure(engine: TextScorer, chosen: ProbeSet | None = None) -> ProbeResult:
    """Return a model's marks on a set of probes and texts; the built-in one if none is given.

    A choice's weight is the likelihood of the whole sentence; the stem's part cancels out.
    """
    asked = built_in() if chosen is None else chosen
    sentences = [sentence for p in asked.probes for sentence in p.sentences]
    scored = list(engine.mean_nll([*sentences, *asked.texts]))
    chances: list[list[float]] = []
    position = 0
    for probe in asked.probes:
        nll = np.array([scored[position + i][0] for i in range(len(probe.choices))])
        weights = np.exp(-(nll - nll.min()))
        chances.append([round(float(w), 6) for w in weights / weights.sum()])
        position += len(probe.choices)
    rest = scored[position:]
    return ProbeResult(chances, [float(s) for s, _ in rest], [int(n) for _, n in rest])


@dataclass(frozen=True)
class Measured:
    """Both models' marks on one set."""

    asked: ProbeSet
    base: ProbeResult
    tuned: ProbeResult


def compare(
    base: ProbeResult,
    tuned: ProbeResult,
    *,
    kl: Sequence[tuple[float, int]] | None = None,
    own: Sequence[Measured] = (),
    confidence: float = 0.95,
    seed: int = 0,
) -> Forgetting:
    """Return what tuning changed, each with its interval.

    `kl` is (sum of nats, positions) a built-in text, `own` the project's own sets.
    """
    general = drop(Measured(built_in(), base, tuned), confidence=confidence, seed=seed)
    chance, count, ratio = general.chance_drop, general.accuracy_drop, general.perplexity_ratio
    if chance is None or count is None or ratio is None or not general.perplexity_detectable:
        raise ValueError("the general probes have questions and texts, these marks lack some")
    moved = None
    if kl:
        sums, sizes = [nats for nats, _ in kl], [positions for _, positions in kl]
        moved = token_mean(sums, sizes, confidence=confidence, seed=seed)
    others = [drop(one, confidence=confidence, seed=seed) for one in own]
    return Forgetting(
        base_accuracy=mean_interval(base.hits, confidence=confidence),
        tuned_accuracy=mean_interval(tuned.hits, confidence=confidence),
        accuracy_drop=count,
        base_chance=float(base.right.mean()),
        tuned_chance=float(tuned.right.mean()),
        chance_drop=chance,
        base_perplexity=_perplexity(base.nll, base.tokens),
        tuned_perplexity=_perplexity(tuned.nll, tuned.tokens),
        perplexity_ratio=ratio,
        perplexity_detectable=general.perplexity_detectable,
        lost=general.lost,
        gained=general.gained,
        kl=moved[0] if moved else None,
        kl_detectable=moved[1] if moved else None,
        topics=by_topic(Measured(built_in(), base, tuned), confidence=confidence, seed=seed),
        own=others,
        further=[figures for one in others for figures in _flat(one)],
    )


def drop(found: Measured, *, confidence: float = 0.95, seed: int = 0) -> Drop:
    """Return what tuning changed on one set."""
    base, tuned = found.base, found.tuned
    chance = count = ratio = None
    detectable = None
    if base.chances:
        chance = paired_difference(base.right, tuned.right, confidence=confidence, seed=seed)
        count = paired_difference(base.hits, tuned.hits, confidence=confidence, seed=seed)
    if base.nll:
        change = np.array(tuned.nll) - np.array(base.nll)
        log, smallest = token_mean(change, base.tokens, confidence=confidence, seed=seed)
        ratio = Interval(
            math.exp(log.estimate), math.exp(log.low), _exp(log.high), log.n
        )  # fmt: skip
        detectable = _exp(smallest)
    lost, gained = _changed(found)
    return Drop(
        found.asked.name,
        float(base.right.mean()) if base.chances else None,
        float(tuned.right.mean()) if base.chances else None,
        chance, count, ratio, detectable, lost, gained,
    )  # fmt: skip


def by_topic(found: Measured, *, confidence: float = 0.95, seed: int = 0) -> list[dict[str, Any]]:
    """Return the change of the chance of the right answer a topic, the worst loss first.

    `sure` is whether the change is beyond doubt after Holm's correction for the topics.
    """
    places: dict[str, list[int]] = {}
    for index, probe in enumerate(found.asked.probes[: len(found.base.chances)]):
        places.setdefault(probe.topic, []).append(index)
    drops = {
        topic: paired_difference(
            found.base.right[at], found.tuned.right[at], confidence=confidence, seed=seed
        )
        for topic, at in places.items()
    }
    family = corrected({topic: d.p for topic, d in drops.items()}, confidence)
    lost, gained = found.base.hits > found.tuned.hits, found.base.hits < found.tuned.hits
    rows = [
        {
            "topic": topic, "questions": d.n, "before": float(found.base.right[at].mean()),
            "after": float(found.tuned.right[at].mean()), "drop": d.estimate, "low": d.low,
            "high": d.high, "p": d.p, "p_holm": family[topic].p_holm, "sure": family[topic].sure,
            "lost": int(lost[at].sum()), "gained": int(gained[at].sum()),
        }
        for (topic, at), d in zip(places.items(), drops.values(), strict=True)
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (-row["drop"], row["topic"]))


def _flat(found: Drop) -> list[dict[str, Any]]:
    """Return the figures of one set of the project's own, each with a name for a table."""
    named = (
        ("loss of the chance of the right answer", found.chance_drop),
        ("loss of right answers", found.accuracy_drop),
        ("perplexity over the base's", found.perplexity_ratio),
    )
    return [
        {"name": f"{found.name}: {what}", "estimate": value.estimate, "low": value.low,
         "high": value.high, "n": value.n}
        for what, value in named if value is not None
    ]  # fmt: skip


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _perplexity(nll: Sequence[float], tokens: Sequence[int]) -> float:
    return math.exp(sum(nll) / max(1, sum(tokens)))


def _changed(found: Measured) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the questions right before and wrong after, and the other way round."""
    lost: list[dict[str, Any]] = []
    gained: list[dict[str, Any]] = []
    asked = found.asked.probes[: len(found.base.chances)]
    for probe, before, after in zip(asked, found.base.chances, found.tuned.chances, strict=True):
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
