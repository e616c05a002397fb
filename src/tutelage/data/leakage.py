"""The leak certificate: which test texts have an exact or a near twin among the training texts.

Near means a cosine of at least 0.90 between tf-idf vectors of character n-grams (char_wb, 3 to 5,
fitted on the training texts). Every pair is found; nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core.example import normalise

THRESHOLD = 0.90
_SHOWN = 5


@dataclass(frozen=True)
class LeakPair:
    """One near twin: positions in the two lists, and the cosine (0..1)."""

    train: int
    test: int
    cosine: float


@dataclass(frozen=True)
class LeakCertificate:
    """`exact` and `near` count test rows with such a twin in train; near includes exact.

    `pairs` holds the closest train row of every test row counted in `near`, closest first.
    """

    exact: int
    near: int
    train_rows: int
    test_rows: int
    threshold: float
    pairs: tuple[LeakPair, ...]

    @property
    def clean(self) -> bool:
        """Whether no test row has a twin."""
        return self.exact == 0 and self.near == 0

    def text(self) -> str:
        """Return the certificate as people read it."""
        head = (
            f"{self.test_rows:,} test rows against {self.train_rows:,} train rows: "
            f"{self.exact:,} exact, {self.near:,} near (cosine ≥ {self.threshold:g})"
        )
        if self.clean:
            return f"{head}. No test row has a twin in train."
        shown = [
            f"  test {pair.test + 1} ~ train {pair.train + 1}  cosine {pair.cosine:.3f}"
            for pair in self.pairs[:_SHOWN]
        ]
        more = len(self.pairs) - len(shown)
        return "\n".join([f"{head}.", *shown, *([f"  and {more:,} more"] if more > 0 else [])])

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON."""
        return {
            "exact": self.exact,
            "near": self.near,
            "train_rows": self.train_rows,
            "test_rows": self.test_rows,
            "threshold": self.threshold,
        }


def leak_certificate(
    train: Sequence[str], test: Sequence[str], *, threshold: float = THRESHOLD
) -> LeakCertificate:
    """Return how many of `test` have an exact (normalised) or near twin in `train`."""
    from tutelage.data.dedup.cosine import similar_pairs
    from tutelage.data.dedup.tfidf import vectorise

    known = {normalise(text) for text in train}
    exact = {i for i, text in enumerate(test) if normalise(text) in known}
    best: dict[int, LeakPair] = {}
    if train and test:
        left, right = vectorise([normalise(t) for t in train], [normalise(t) for t in test])
        for one, two, cosine in zip(*similar_pairs(left, right, threshold), strict=True):
            pair = LeakPair(int(one), int(two), round(float(min(cosine, 1.0)), 6))
            if pair.test not in best or pair.cosine > best[pair.test].cosine:
                best[pair.test] = pair
    pairs = sorted(best.values(), key=lambda pair: (-pair.cosine, pair.test))
    near = len(exact | set(best))
    return LeakCertificate(len(exact), near, len(train), len(test), threshold, tuple(pairs))
