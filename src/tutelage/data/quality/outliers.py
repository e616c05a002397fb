"""Rows that are unlike the others: by meaning, by letters, by length, by the base model's loss.

Each signal gives a row the share of rows at least as unusual; a row's score is its strongest
signal's -ln(share), which is also the reason it is shown with. A row is flagged where a signal
stands far out (a modified z-score: Iglewicz & Hoaglin 1993). Nothing is dropped here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.data.quality.novelty import novelty, rare_words
from tutelage.data.quality.space import Space

LEAST_ROWS = 20  # with fewer rows nothing can be said to be unusual
_FAR = 3.5  # modified z-score from which on a row is flagged
_FAR_LENGTH = 6.0  # lengths vary more by nature

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Signal:
    """One way to be unusual. `values` rise with it; `say(index)` is the sentence for a row."""

    name: str
    values: Values
    say: Callable[[int], str]
    weight: float = 1.0
    limit: float = _FAR
    only_far: bool = False  # counts for flagged rows only

    def surprise(self) -> Values:
        """Return weight · -ln(share of rows at least as unusual), shape (N,)."""
        ordered = np.sort(self.values)
        at_least = len(ordered) - np.searchsorted(ordered, self.values, side="left")
        found = -np.log(at_least / len(ordered)) * self.weight
        return np.where(self.far(), found, 0.0) if self.only_far else found

    def far(self) -> NDArray[np.bool_]:
        """Return which rows stand far above the median, in median deviations of its upper half.

        Where most rows are alike the mean deviation takes the median one's place.
        """
        middle = np.median(self.values)
        above = self.values[self.values >= middle] - middle
        scale = 1.4826 * np.median(above) or 1.2533 * np.mean(above)
        far: NDArray[np.bool_] = self.values - middle > max(self.limit * scale, 1e-12)
        return far


@dataclass(frozen=True)
class Outlier:
    """One row, by its position: how unusual, in which way, and whether it stands far out."""

    index: int
    score: float
    signal: str
    reason: str
    flagged: bool


@dataclass(frozen=True)
class Outliers:
    """Every row's score, shape (N,), and which rows stand far out."""

    signals: Sequence[Signal]
    scores: Values
    flagged: NDArray[np.bool_]
    texts: Sequence[str]

    @property
    def order(self) -> NDArray[np.int64]:
        """The positions of the rows, most unusual first."""
        return np.argsort(-self.scores, kind="stable")

    def top(self, count: int) -> list[Outlier]:
        """Return the `count` most unusual rows with their reasons."""
        return self._told([int(i) for i in self.order[:count] if self.scores[i] > 0])

    def far(self) -> list[Outlier]:
        """Return every flagged row with its reason, most unusual first."""
        return self._told([int(i) for i in self.order if self.flagged[i]])

    def _told(self, picked: list[int]) -> list[Outlier]:
        if not picked:
            return []
        surprises = np.stack([signal.surprise() for signal in self.signals])
        far = np.stack([signal.far() for signal in self.signals])
        rare = rare_words(self.texts, picked)
        found = []
        for index in picked:
            best = int(surprises[:, index].argmax())
            others = [n for n in np.flatnonzero(far[:, index]).tolist() if n != best]
            said = [self.signals[n].say(index) for n in (best, *others)]
            if rare[index] and any(self.signals[n].name == "letters" for n in (best, *others)):
                said.append(f"no other row has {', '.join(map(repr, rare[index]))}")
            score, flagged = float(self.scores[index]), bool(self.flagged[index])
            signal = self.signals[best].name
            found.append(Outlier(index, score, signal, "; ".join(said), flagged))
        return found


def find_outliers(
    space: Space, *, answers: Sequence[str] | None = None, losses: Values | None = None
) -> Outliers:
    """Return how unusual each row is.

    `answers` are given where they are free text: their lengths count too. `losses` is the mean
    -ln p a token under the base model, shape (N,), nan where there is none.
    """
    texts = space.texts
    if len(texts) < LEAST_ROWS:
        nothing = np.zeros(len(texts))
        return Outliers([], nothing, nothing > 0, texts)
    signals = [_letters(space), _distance(space), _length("input", texts)]
    if not space.fitted:
        signals.append(_centre(space))
    if answers is not None:
        signals.append(_length("answer", answers))
    if losses is not None:
        signals.append(_loss(losses))
    scores = np.max([signal.surprise() for signal in signals], axis=0)
    flagged = np.any([signal.far() for signal in signals], axis=0)
    return Outliers(signals, scores, flagged, texts)


def _letters(space: Space) -> Signal:
    found = novelty(space.texts, space.twins)
    middle = float(np.median(found.unseen))

    def say(index: int) -> str:
        share = found.unseen[index]
        if share < 0.02:
            return "it is made of letters that are rare in the other rows"
        return (
            f"{share:.0%} of its letter sequences are in no other row (the median is {middle:.0%})"
        )

    return Signal("letters", found.rarity, say)


def _distance(space: Space) -> Signal:
    """Return 1 - mean cosine of the nearest rows of other clusters."""
    near = space.apart.cosines
    count = near.shape[1]
    mean = near.mean(axis=1).astype(np.float64)
    middle = float(np.median(mean))
    weight = 0.5 if space.fitted else 1.0  # fitted vectors do not hold a stranger's words

    def say(index: int) -> str:
        return (
            f"unlike its {count} nearest rows: mean cosine {mean[index]:.2f}, "
            f"the median is {middle:.2f}"
        )

    return Signal("neighbours", 1 - mean, say, weight)


def _centre(space: Space) -> Signal:
    """Return 1 - cosine with the mean of all rows: another topic, even if several rows share it."""
    middle = space.vectors.mean(axis=0)
    cosine = (space.vectors @ (middle / max(float(np.linalg.norm(middle)), 1e-9))).astype(float)
    median = float(np.median(cosine))

    def say(index: int) -> str:
        return (
            f"far from what the rows are about: cosine with their mean {cosine[index]:.2f}, "
            f"the median is {median:.2f}"
        )

    return Signal("topic", 1 - cosine, say)


def _length(what: str, texts: Sequence[str]) -> Signal:
    lengths = np.array([len(text) for text in texts], dtype=np.float64)
    middle = float(np.median(lengths))
    ratios = np.log((lengths + 1) / (middle + 1))

    def say(index: int) -> str:
        ratio = (lengths[index] + 1) / (middle + 1)
        words = f"{ratio:.0f} × the median length" if ratio > 1 else "very short"
        return f"the {what} is {words}: {lengths[index]:,.0f} characters, the median {middle:,.0f}"

    return Signal(f"{what} length", np.abs(ratios), say, 0.7, _FAR_LENGTH, only_far=True)


def _loss(losses: Values) -> Signal:
    middle = float(np.nanmedian(losses)) if np.isfinite(losses).any() else 0.0
    known = np.where(np.isfinite(losses), losses, middle)

    def say(index: int) -> str:
        return (
            f"hard to read for the base model: perplexity {np.exp(min(known[index], 50)):,.0f}, "
            f"the median is {np.exp(min(middle, 50)):,.0f}"
        )

    return Signal("loss", known, say)
