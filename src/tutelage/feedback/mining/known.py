"""What the dataset knows: how near a text is to its rows, and what they say it should be.

Test rows are never given to this module. It embeds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.data.linear import LinearModel, Vectors, fit_linear

ROWS = 4096  # that a text is compared with; of more, a random part
PROBED = 8192  # rows that the classifier is fitted on
FAR = 0.2  # share of rows as far from their own nearest: from here on a text is novel at all
_LEAST = 20  # rows without which nothing is called novel
_BLOCK = 4_000_000  # cosines held at once

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """What the dataset says of texts, each array (N,).

    `novelty` is 0..1, `nearest` the place of the nearest row and `cosine` its. `top` and `second`
    are the classifier's likeliest labels (places in its labels, -1 without one), `chance` and
    `runner` their probabilities; `own` is that of the label the text was given, NaN without one
    that the rows know.
    """

    novelty: Floats
    nearest: NDArray[np.int32]
    cosine: Floats
    top: NDArray[np.int32]
    second: NDArray[np.int32]
    chance: Floats
    runner: Floats
    own: Floats


class Knowledge:
    """Rows of the train and validation splits. `texts` are those that were kept."""

    def __init__(
        self, texts: Sequence[str], labels: Sequence[str | None], vectors: Vectors, seed: int = 7
    ) -> None:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(texts))
        kept = np.sort(order[:ROWS])
        self.texts = [texts[i] for i in kept]
        self.vectors: Vectors = vectors[kept]
        self._own = np.sort(_own_nearest(self.vectors))
        self.model = _fit(vectors, labels, np.sort(order[:PROBED]))
        self._place: dict[str | None, int] = {name: i for i, name in enumerate(self.labels)}

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the classifier knows."""
        return self.model.labels if self.model is not None else ()

    def look(self, vectors: Vectors, labels: Sequence[str | None] = ()) -> Look:
        """Return what the rows say of unit vectors, shape (N, D), that were given these labels."""
        nearest, cosine = _nearest(vectors, self.vectors)
        novelty = self._novelty(cosine)
        total = len(vectors)
        given = np.full(total, np.nan, np.float32)
        if self.model is None:
            none, zero = np.full(total, -1, np.int32), np.zeros(total, np.float32)
            return Look(novelty, nearest, cosine, none, none, zero, zero, given)
        chances = self.model.probabilities(vectors)
        rows = np.arange(total)
        top = chances.argmax(axis=1)
        chance = chances[rows, top].astype(np.float32)
        place = np.array([self._place.get(label, -1) for label in labels], np.int64)
        told = np.flatnonzero(place >= 0)
        given[told] = chances[told, place[told]]
        chances[rows, top] = -1
        second = chances.argmax(axis=1)
        return Look(
            novelty, nearest, cosine, top.astype(np.int32), second.astype(np.int32), chance,
            chances[rows, second].astype(np.float32), given,
        )  # fmt: skip

    def _novelty(self, cosine: Floats) -> Floats:
        """Return how novel texts are: 0 where a fifth of the rows lie as far from theirs, else up.

        p is the share of rows whose own nearest row is no nearer, the conformal p-value of an
        outlier (Bates et al. 2023); novelty is 1 - p / 0.2, at least 0.
        """
        if len(self) < _LEAST:
            return np.zeros(len(cosine), np.float32)
        p = (1 + np.searchsorted(self._own, cosine, side="right")) / (1 + len(self._own))
        novelty: Floats = np.maximum(1 - p / FAR, 0).astype(np.float32)
        return novelty

    def nearer_rows(self, cosine: float) -> float:
        """Return the share of rows whose own nearest row is nearer than `cosine`."""
        below = float(np.searchsorted(self._own, cosine, side="right"))
        return 1 - below / max(len(self._own), 1)


def _fit(
    vectors: Vectors, labels: Sequence[str | None], rows: NDArray[np.int64]
) -> LinearModel | None:
    named = [i for i in rows if labels[i] is not None]
    names = [str(labels[i]) for i in named]
    if len(set(names)) < 2:
        return None
    model = fit_linear(vectors[named], names)
    weights, bias = model.weights.astype(np.float32), model.bias.astype(np.float32)
    return LinearModel(model.labels, weights, bias)  # type: ignore[arg-type]


def _own_nearest(vectors: Vectors) -> Floats:
    """Return the cosine of each row to its nearest other row."""
    found = np.full(len(vectors), -1.0, np.float32)
    step = max(1, _BLOCK // max(len(vectors), 1))
    for start in range(0, len(vectors), step):
        cosines = vectors[start : start + step] @ vectors.T
        own = np.arange(len(cosines))
        cosines[own, own + start] = -1.0
        found[start : start + step] = cosines.max(axis=1)
    return found


def _nearest(vectors: Vectors, rows: Vectors) -> tuple[NDArray[np.int32], Floats]:
    place = np.full(len(vectors), -1, np.int32)
    cosine = np.zeros(len(vectors), np.float32)
    if not len(rows):
        return place, cosine
    step = max(1, _BLOCK // len(rows))
    for start in range(0, len(vectors), step):
        cosines = vectors[start : start + step] @ rows.T
        best = cosines.argmax(axis=1)
        place[start : start + step] = best
        cosine[start : start + step] = np.take_along_axis(cosines, best[:, None], 1)[:, 0]
    return place, cosine
