"""How far experts agree, by the coefficient that fits their answers, with an interval and why.

The bootstrap resamples items (not answers), because answers to one item belong together. The
coefficients themselves are in coefficients.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import DataError
from tutelage.data.quality import coefficients as by
from tutelage.data.quality.ratings import Codes, Level, Ratings

RESAMPLES = 2000
PREVALENT = 0.85  # share of one category from which on kappa misleads and AC1 stands beside it
RELY, TENTATIVE = 0.800, 0.667  # Krippendorff, Content Analysis (2004), p. 241
_UNDEFINED = 0.05  # share of resamples without a value from which on no interval is given
_BLOCK = 4_000_000  # numbers of a block of resamples
_CONFUSIONS = 10

Array = NDArray[np.float64]
Strength = Literal["reliable", "tentative", "unreliable", "unknown"]


@dataclass(frozen=True)
class Coefficient:
    """One coefficient with its percentile interval; None where it can't be computed.

    `n` counts the items with two answers or more that it rests on.
    """

    key: str
    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    why: str = ""


@dataclass(frozen=True)
class LabelAgreement:
    """How far raters agree on one label: `answers` gave it, `agreement` is specific agreement."""

    label: str
    answers: int
    agreement: float | None
    low: float | None
    high: float | None
    alpha: float | None  # the label against the rest


@dataclass(frozen=True)
class PairAgreement:
    """Two raters over the items that both answered."""

    first: str
    second: str
    n: int
    percent: float | None
    kappa: Coefficient


@dataclass(frozen=True)
class Agreement:
    """Everything about one set of answers. `coefficients` starts with the one that fits."""

    raters: tuple[str, ...]
    categories: tuple[str, ...]
    level: Level
    items: int
    rated: int  # items with two answers or more
    answers: int
    prevalent: str  # the commonest category
    prevalence: float  # its share of the answers
    coefficients: tuple[Coefficient, ...]
    labels: tuple[LabelAgreement, ...]
    pairs: tuple[PairAgreement, ...]
    confusions: tuple[tuple[str, str, float], ...]  # pairs of categories, commonest first
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> Coefficient:
        """The coefficient that fits the data."""
        return self.coefficients[0]

    @property
    def strength(self) -> Strength:
        """How far the labels can be relied on, by the chosen coefficient and its interval."""
        value, low = self.chosen.value, self.chosen.low
        if value is None:
            return "unknown"
        if low is not None and low >= RELY:
            return "reliable"
        return "tentative" if value >= TENTATIVE else "unreliable"

    def sentence(self) -> str:
        """Return the result in one sentence."""
        best = self.chosen
        if best.value is None:
            return f"{best.name} can't be computed: {best.why}"
        span = f" ({best.low:.3f} to {best.high:.3f})" if best.low is not None else ""
        meaning = {
            "reliable": "the labels can be relied on",
            "tentative": "enough for tentative conclusions",
            "unreliable": "too little to rely on the labels",
        }[self.strength]
        return f"{best.name} {best.value:.3f}{span} on {_items(best.n)}: {meaning}"

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "sentence": self.sentence(),
            "strength": self.strength,
            "chosen": self.chosen.key,
            **asdict(self),
        }


def agreement(
    ratings: Ratings,
    *,
    level: Level = "nominal",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 7,
) -> Agreement:
    """Return how far the raters agree. Raises DataError if no item has two answers."""
    counts = ratings.counts()
    answers = counts.sum(axis=1)
    rated = int((answers >= 2).sum())
    if rated == 0:
        raise DataError(
            "no item has answers of two people, so nothing can be said about agreement",
            fix="Give items to two people or more: `tutelage data label assign --overlap 2`",
        )
    draw = _Bootstrap(ratings, confidence, resamples, seed)
    shares = counts.sum(axis=0) / counts.sum()
    top = int(shares.argmax())
    found, labels = draw.measure(_fitting(draw, ratings, level, float(shares[top])))
    return Agreement(
        raters=ratings.raters,
        categories=ratings.categories,
        level=level,
        items=len(ratings.items),
        rated=rated,
        answers=int(counts.sum()),
        prevalent=ratings.categories[top],
        prevalence=float(shares[top]),
        coefficients=tuple(found),
        labels=tuple(labels),
        pairs=tuple(_pair(ratings, a, b, level, draw) for a, b in _pairs(ratings)),
        confusions=_confusions(ratings, counts),
        notes=tuple(_notes(found[0], found, answers)),
    )


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval (1927) for a rate; n = 0 gives 0..1."""
    if n <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Choice:
    """A coefficient that can be given for the data, and why."""

    key: str
    name: str
    statistic: by.Statistic
    why: str


class _Bootstrap:
    """The distinct answer patterns of the items and how often each is drawn, B times."""

    def __init__(self, ratings: Ratings, confidence: float, resamples: int, seed: int) -> None:
        answered = ratings.codes[:, (ratings.codes >= 0).any(axis=0)]
        patterns, self.often = np.unique(answered, axis=1, return_counts=True)
        k = len(ratings.categories)
        self.ratings = Ratings(ratings.raters, ratings.categories, (), patterns)
        self.counts = self.ratings.counts()
        self.rated = int(self.often[self.counts.sum(axis=1) >= 2].sum())
        self.confidence, self.resamples, self.seed, self.k = confidence, resamples, seed, k

    def measure(
        self, choices: Sequence[Choice], labels: bool = True
    ) -> tuple[list[Coefficient], list[LabelAgreement]]:
        """Return the coefficients and, if asked, every label's, all from the same resamples."""
        statistics = [choice.statistic for choice in choices]
        statistics += [by.label_statistic(self.counts)] if labels else []
        now = np.concatenate([_columns(s(self._once())) for s in statistics], axis=1)[0]
        drawn = np.concatenate(
            [
                np.concatenate([_columns(s(weights)) for s in statistics], axis=1)
                for weights in self._draws()
            ]
        )
        found = [self._coefficient(c, now[i], drawn[:, i]) for i, c in enumerate(choices)]
        own, own_drawn = now[len(choices) :], drawn[:, len(choices) :]
        told = [self._label(index, own, own_drawn) for index in range(self.k if labels else 0)]
        return found, told

    def _once(self) -> Array:
        return self.often[None, :].astype(np.float64)

    def _draws(self) -> Iterator[Array]:
        """Yield blocks of resamples, shape (b, P): how often each pattern was drawn."""
        rng = np.random.default_rng(self.seed)
        total = int(self.often.sum())
        block = max(1, _BLOCK // len(self.often))
        for start in range(0, self.resamples, block):
            size = min(block, self.resamples - start)
            yield rng.multinomial(total, self.often / total, size=size).astype(np.float64)

    def _coefficient(self, choice: Choice, now: float, drawn: Array) -> Coefficient:
        if math.isnan(now):
            why = "only one category was used, so chance alone gives full agreement"
            return Coefficient(choice.key, choice.name, None, None, None, self.rated, why)
        low, high = self.limits(drawn)
        return Coefficient(choice.key, choice.name, float(now), low, high, self.rated, choice.why)

    def _label(self, index: int, now: Array, drawn: Array) -> LabelAgreement:
        agreed, alpha = (_number(now[index]), _number(now[self.k + index]))
        low, high = self.limits(drawn[:, index]) if agreed is not None else (None, None)
        rated = self.counts.sum(axis=1) >= 2
        answers = int(self.counts[rated, index] @ self.often[rated])
        if agreed is not None and low == high:  # the bootstrap sees no spread where all agree
            low, high = wilson(agreed * answers, answers, self.confidence)
        return LabelAgreement(self.ratings.categories[index], answers, agreed, low, high, alpha)

    def limits(self, drawn: Array) -> tuple[float | None, float | None]:
        """Return the percentile interval; None where too many resamples have no value."""
        finite = drawn[np.isfinite(drawn)]
        if not len(drawn) or len(finite) < (1 - _UNDEFINED) * len(drawn):
            return None, None
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(finite, [tail, 1 - tail])
        return float(low), float(high)


def _fitting(draw: _Bootstrap, ratings: Ratings, level: Level, prevalence: float) -> list[Choice]:
    """Return the coefficients that can be given, the one that fits first, each with its reason."""
    found = _main(draw, ratings, level)
    percent = by.percent_statistic(draw.counts, draw.counts.sum(axis=1))
    why = "plain: what chance gives is still in it"
    found.append(Choice("percent", "percent agreement", percent, why))
    if prevalence > PREVALENT:
        why = (
            f"{prevalence:.0%} of the answers are one category: kappa and alpha fall although "
            "raters agree, AC1 does not"
        )
        found.append(Choice("ac1", "Gwet's AC1", by.ac1_statistic(draw.counts), why))
    return found


def _main(draw: _Bootstrap, ratings: Ratings, level: Level) -> list[Choice]:
    codes, k = draw.ratings.codes, draw.k
    values = ratings.values() if level == "interval" else np.arange(k, dtype=np.float64)
    statistic = by.alpha_statistic(draw.counts, level, values)

    def alpha(why: str) -> Choice:
        return Choice("alpha", f"Krippendorff's alpha ({level})", statistic, why)

    raters = [r for r in range(len(codes)) if (codes[r] >= 0).any()]
    if level == "interval":
        return [alpha("answers are numbers on a scale with equal steps")]
    if len(raters) == 2:
        return [*_cohen(codes[raters], k, level), alpha("comparable with sets of more raters")]
    many = f"{len(raters)} raters"
    if level == "ordinal":
        return [alpha(f"{many}, ordered categories")]
    if not bool((codes[raters] >= 0).all()):
        return [alpha(f"{many}, not every item answered by all")]
    why = f"{many}, every item answered by all"
    fleiss = Choice("fleiss", "Fleiss' kappa", by.fleiss_statistic(draw.counts), why)
    return [fleiss, alpha("comparable with sets where answers are missing")]


def _cohen(two: Codes, k: int, level: Level) -> list[Choice]:
    plain = by.cohen_statistic(two, k, None)
    if level == "nominal":
        return [Choice("cohen", "Cohen's kappa", plain, "two raters, categories without an order")]
    quadratic = by.cohen_statistic(two, k, "quadratic")
    linear = by.cohen_statistic(two, k, "linear")
    why = "two raters, ordered categories: far-off answers count more"
    return [
        Choice("cohen_quadratic", "Cohen's kappa, quadratic weights", quadratic, why),
        Choice("cohen_linear", "Cohen's kappa, linear weights", linear, "milder on far-off ones"),
        Choice("cohen", "Cohen's kappa, no weights", plain, "every difference counts the same"),
    ]


def _pairs(ratings: Ratings) -> list[tuple[int, int]]:
    given = ratings.codes >= 0
    return [
        (a, b)
        for a, b in combinations(range(len(ratings.raters)), 2)
        if (given[a] & given[b]).any()
    ]


def _pair(ratings: Ratings, a: int, b: int, level: Level, of: _Bootstrap) -> PairAgreement:
    two = ratings.pair(a, b)
    draw = _Bootstrap(two, of.confidence, of.resamples, of.seed)
    weights: by.Weighting | None = None if level == "nominal" else "quadratic"
    statistic = by.cohen_statistic(draw.ratings.codes, draw.k, weights)
    (kappa,), _ = draw.measure([Choice("cohen", "Cohen's kappa", statistic, "")], labels=False)
    percent = by.percent_agreement(two.codes)
    return PairAgreement(ratings.raters[a], ratings.raters[b], len(two.items), percent, kappa)


def _confusions(ratings: Ratings, counts: Array) -> tuple[tuple[str, str, float], ...]:
    """Return the pairs of categories that met on one item, with how often, commonest first."""
    met = by.coincidence_matrix(counts)
    first, second = np.nonzero(np.triu(met, 1) > 1e-9)
    order = sorted(zip(first, second, strict=True), key=lambda at: (-met[at], at[0], at[1]))
    names = ratings.categories
    return tuple((names[a], names[b], float(met[a, b])) for a, b in order[:_CONFUSIONS])


def _notes(best: Coefficient, found: Sequence[Coefficient], answers: Array) -> list[str]:
    notes = []
    if best.value is not None and best.low is None:
        notes.append("no interval: too many resamples hold one category only; rate more items")
    percent = next(c for c in found if c.key == "percent")
    if percent.value == 1.0:
        low = wilson(best.n, best.n)[0]
        notes.append(
            f"nobody disagreed on {_items(best.n)}: the bootstrap sees no spread, but the true "
            f"agreement may be as low as {low:.0%}"
        )
    alone = int((answers == 1).sum())
    if alone:
        notes.append(f"{_items(alone)} answered by one person only: they say nothing here")
    return notes


def _columns(values: Array) -> Array:
    return values if values.ndim == 2 else values[:, None]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count:,} items"
