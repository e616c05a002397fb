"""The single tests of a comparison: one function a property, each returning a Part.

`moved` of what they return says whether a difference is large enough to matter; whether it is
chance is decided over all of them together (check.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.data.quality.two_sample import OTHER, Topic, separability, topics
from tutelage.data.stability import length_shares, stability
from tutelage.feedback.drift.report import Part, Shown
from tutelage.feedback.drift.sample import NONE, Ints, Sample
from tutelage.feedback.drift.words import label_words, length_words, score_words, topic_words

if TYPE_CHECKING:
    from tutelage.feedback.drift.check import CheckSettings

TOLD_APART = 0.55  # AUC from which on two sets differ enough to matter
RATIO, POINTS = 1.5, 0.02  # a topic's shares differ by this factor and this much, at least
VERDICTS = 0.05  # difference of mean verdicts that matters
RARE = 10  # rows of a label on both sides together, under which labels are counted as one
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_SHOWN = 12  # labels and topics of a part's figures
_RARE = "(rare)"

Test = Callable[[NDArray[np.float32], NDArray[np.float32], int], tuple[float, float]]


def wording_part(
    reference: Sample,
    recent: Sample,
    embed: Callable[[Sequence[str]], NDArray[np.float32]],
    test: Test,
    seed: int,
    large: bool,
) -> Part:
    """Return the kernel test of requests' vectors; what it finds matters where others see it."""
    vectors = embed([*reference.texts, *recent.texts])
    one = len(reference.texts)
    found, p = test(vectors[:one], vectors[one:], seed)
    return Part("request meaning", "requests", "mmd", found, p, p, large, one, len(recent.texts))


def same_words_part(
    reference: Sample, recent: Sample, seed: int, *, side: Literal["requests", "answers"]
) -> Part:
    """Return how well a classifier tells the words of both sides apart."""
    texts = (reference.texts, recent.texts)
    if side == "answers":
        texts = (reference.answers, recent.answers)
    first, second = ([text for text in part if text] for part in texts)
    found = separability(first, second, seed)
    name = "request wording" if side == "requests" else "answer wording"
    said = (
        f"a classifier tells {side} from those before: of a new and an old one it finds the new "
        f"one {found.auc:.0%} of the time, where 50% is chance"
    )
    return Part(
        name, side, "auc", found.auc, found.p, found.p, found.auc >= TOLD_APART, len(first),
        len(second), sentence=said, figures={"low": found.low, "high": found.high},
    )  # fmt: skip


def topic_parts(reference: Sample, recent: Sample, seed: int, against: str) -> list[Part]:
    """Return the test of what requests are about, as one part; none where no topics are found."""
    found = topics(reference.texts, recent.texts, seed)
    if not found:
        return []
    large = [topic for topic in found if topic_differs(topic)]
    examples = [_shown(recent, topic.second_example) for topic in large if topic.second_example]
    figures = {
        "topics": [
            {
                "about": list(t.words) if t.words != OTHER else [],
                "reference": t.first,
                "recent": t.second,
                "p": t.p,
                "moved": topic_differs(t),
                "example": t.second_example or t.first_example,
            }
            for t in found[:_SHOWN]
        ]
    }
    p = min(topic.p for topic in found)
    most = max(abs(topic.second - topic.first) for topic in (large or found))
    said = "; ".join(topic_words(topic, against) for topic in large[:3])
    return [
        Part(
            "topics", "requests", "topic", most, p, p, bool(large), len(reference.texts),
            len(recent.texts), sentence=said, examples=tuple(examples[:6]), figures=figures,
        )
    ]  # fmt: skip


def topic_differs(topic: Topic) -> bool:
    """Return whether a topic's shares differ for certain, and by enough to matter."""
    low, high = sorted((topic.first, topic.second))
    return topic.p < 0.01 and high - low >= POINTS and (low == 0 or high / low >= RATIO)


def length_part(
    name: Literal["request length", "answer length"],
    reference: Sample,
    recent: Sample,
    settings: CheckSettings,
) -> Part | None:
    """Return how far a length has moved; None where one side has none."""
    which = "request_length" if name == "request length" else "answer_length"
    one, two = (_known(getattr(side, which)) for side in (reference, recent))
    if not len(one) or not len(two):
        return None
    shares = length_shares(one, two)
    index = stability(*shares)
    figures = {
        "quantiles": list(_QUANTILES),
        "reference": np.quantile(one, _QUANTILES).tolist(),
        "recent": np.quantile(two, _QUANTILES).tolist(),
    }
    side: Literal["requests", "answers"] = "requests" if which == "request_length" else "answers"
    p = _chance(index, len(shares[0]), len(one), len(two))
    return Part(
        name, side, "psi", index, p, p, index >= settings.notable, len(one), len(two),
        sentence=length_words(side, figures["reference"], figures["recent"], settings.against),
        figures=figures,
    )  # fmt: skip


def label_part(reference: Sample, recent: Sample, settings: CheckSettings) -> Part | None:
    """Return how far the labels of answers have moved; None where there are none."""
    one, two = reference.label.counts(), recent.label.counts()
    if not one or not two:
        return None
    names, counts = _pooled(one, two)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / totals
    index = stability(shares[0], shares[1])
    p = _independence(counts)
    order = np.argsort(-np.abs(shares[1] - shares[0]), kind="stable")[:_SHOWN]
    figures: dict[str, Any] = {
        "labels": [
            {
                "label": names[i],
                "reference": float(shares[0, i]),
                "recent": float(shares[1, i]),
            }
            for i in order
        ]
    }
    return Part(
        "label", "answers", "psi", index, p, p, index >= settings.notable, int(totals[0, 0]),
        int(totals[1, 0]), sentence=label_words(figures["labels"], settings.against),
        figures=figures,
    )  # fmt: skip


def score_part(reference: Sample, recent: Sample, settings: CheckSettings) -> Part | None:
    """Return how far verdicts on answers have moved; None where one side has none."""
    from scipy.stats import mannwhitneyu

    one, two = (side.score[~np.isnan(side.score)] for side in (reference, recent))
    if not len(one) or not len(two):
        return None
    means = float(one.mean()), float(two.mean())
    same = len(np.unique(np.concatenate([one, two]))) < 2
    p = 1.0 if same else float(mannwhitneyu(one, two, method="asymptotic").pvalue)
    difference = means[1] - means[0]
    return Part(
        "score", "scores", "rank", difference, p, p, abs(difference) >= VERDICTS, len(one),
        len(two), sentence=score_words(*means, settings.against),
        figures={"reference": means[0], "recent": means[1]},
    )  # fmt: skip


def _known(values: Ints) -> Ints:
    return np.asarray(values[values != NONE])


def _pooled(one: dict[str, int], two: dict[str, int]) -> tuple[list[str], NDArray[np.float64]]:
    """Return label names and their counts on both sides, shape (2, L); rare ones are one."""
    both = {name: (one.get(name, 0), two.get(name, 0)) for name in sorted({*one, *two})}
    kept = {name: pair for name, pair in both.items() if sum(pair) >= RARE}
    rest = [pair for name, pair in both.items() if name not in kept]
    if rest:
        kept[_RARE] = (sum(a for a, _ in rest), sum(b for _, b in rest))
    return list(kept), np.array(list(kept.values()), dtype=np.float64).T


def _independence(counts: NDArray[np.float64]) -> float:
    """Return the p-value of Pearson's chi-squared test that both sides share one law."""
    from scipy.stats import chi2_contingency

    if counts.shape[1] < 2:
        return 1.0
    return float(chi2_contingency(counts, correction=False).pvalue)


def _chance(index: float, bins: int, one: int, two: int) -> float:
    """Return how often chance gives such an index (Yurdakul and Naranjo 2020, as by_chance)."""
    from scipy.stats import chi2

    return float(chi2.sf(index / (1 / one + 1 / two), bins - 1)) if bins > 1 else 1.0


def _shown(sample: Sample, text: str) -> Shown:
    place = sample.texts.index(text)
    return Shown(sample.ids[place], "recent", text)
