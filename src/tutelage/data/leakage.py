"""The leak certificate: which test texts have an exact, near or semantic twin in train.

Near means a cosine of at least 0.90 between tf-idf vectors of character n-grams (char_wb, 3 to 5,
fitted on the training texts). Every pair is found; nothing is sampled. Semantic, where an embedder
is named, means a cosine of at least 0.95 between embeddings: the same request in other words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tutelage.core.example import normalise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THRESHOLD = 0.90
SEMANTIC = 0.95
_SHOWN = 5
_BLOCK = 1 << 22  # cosines of embeddings held at once


@dataclass(frozen=True)
class LeakPair:
    """One twin: positions in the two lists, and the cosine (0..1)."""

    train: int
    test: int
    cosine: float


@dataclass(frozen=True)
class LeakCertificate:
    """`exact` and `near` count test rows with such a twin in train; near includes exact.

    `pairs` holds the closest train row of every test row counted in `near`, closest first.
    `semantic` and `semantic_pairs` are the same for embeddings, and None and empty without an
    `embedder`; they hold rows counted in `near` too.
    """

    exact: int
    near: int
    train_rows: int
    test_rows: int
    threshold: float
    pairs: tuple[LeakPair, ...]
    semantic: int | None = None
    semantic_pairs: tuple[LeakPair, ...] = ()
    embedder: str | None = None

    @property
    def clean(self) -> bool:
        """Whether no test row has an exact or near twin."""
        return self.exact == 0 and self.near == 0

    def text(self) -> str:
        """Return the certificate as people read it."""
        head = (
            f"{self.test_rows:,} test rows against {self.train_rows:,} train rows: "
            f"{self.exact:,} exact, {self.near:,} near (cosine ≥ {self.threshold:g})"
        )
        if self.semantic is not None:
            head += f", {self.semantic:,} semantic ({self.embedder}, cosine ≥ {SEMANTIC:g})"
        if self.clean and not self.semantic:
            return f"{head}. No test row has a twin in train."
        lines = [f"{head}.", *_shown(self.pairs, "")]
        return "\n".join([*lines, *_shown(self.semantic_pairs, ", by meaning")])

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON."""
        return {
            "exact": self.exact,
            "near": self.near,
            "semantic": self.semantic,
            "train_rows": self.train_rows,
            "test_rows": self.test_rows,
            "threshold": self.threshold,
            "embedder": self.embedder,
        }


def leak_certificate(
    train: Sequence[str],
    test: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    semantic: str | None = None,
) -> LeakCertificate:
    """Return how many of `test` have an exact (normalised) or near twin in `train`.

    `semantic` names an embedder ("minilm", "tfidf", "auto"): then twins by meaning are counted as
    well. Raises ConfigError for an unknown embedder.
    """
    from tutelage.data.dedup.tfidf import vectorise

    known, asked = vectorise(train, test)
    pairs, exact = twins(train, test, known, asked, threshold)
    found = certificate(pairs, exact, (len(train), len(test)), threshold)
    if semantic is None:
        return found
    from tutelage.inference.embed import load_embedder, resolve

    name = resolve(semantic, len(train) + len(test))
    vectors = load_embedder(name).embed([*train, *test])
    return with_meaning(found, vectors[: len(train)], vectors[len(train) :], name)


def twins(
    train: Sequence[str],
    test: Sequence[str],
    left: Any,
    right: Any,
    threshold: float = THRESHOLD,
) -> tuple[list[LeakPair], set[int]]:
    """Return every exact or near pair, and the test rows that have an exact twin.

    `left` and `right` are the texts as `tfidf.weigh` gives them. Equal texts have the cosine 1.
    """
    from tutelage.data.dedup.cosine import similar_pairs

    places: dict[str, list[int]] = {}
    for index, text in enumerate(train):
        places.setdefault(normalise(text), []).append(index)
    same = {i: places[key] for i, text in enumerate(test) if (key := normalise(text)) in places}
    found = {(one, two): 1.0 for two, ones in same.items() for one in ones}
    if train and test:
        close = similar_pairs(left, right, threshold)
        for one, two, cosine in zip(*(part.tolist() for part in close), strict=True):
            found.setdefault((one, two), round(min(cosine, 1.0), 6))
    return [LeakPair(*key, cosine) for key, cosine in found.items()], set(same)


def certificate(
    pairs: Sequence[LeakPair], exact: set[int], rows: tuple[int, int], threshold: float = THRESHOLD
) -> LeakCertificate:
    """Return the certificate for what `twins` found in two lists of so many rows."""
    closest = _closest(pairs)
    return LeakCertificate(len(exact), len(closest), *rows, threshold, closest)


def with_meaning(
    found: LeakCertificate,
    train: NDArray[np.float32],
    test: NDArray[np.float32],
    embedder: str,
) -> LeakCertificate:
    """Return the certificate with semantic twins: `train` and `test` are unit rows, (N, D)."""
    import numpy as np

    best: list[LeakPair] = []
    height = max(1, _BLOCK // max(1, len(train)))
    for start in range(0, len(test) if len(train) else 0, height):
        cosines = test[start : start + height] @ train.T
        nearest = cosines.argmax(axis=1)
        highest = cosines[np.arange(len(cosines)), nearest]
        for row in np.flatnonzero(highest >= SEMANTIC):
            cosine = round(min(float(highest[row]), 1.0), 6)
            best.append(LeakPair(int(nearest[row]), start + int(row), cosine))
    closest = _closest(best)
    return replace(found, semantic=len(closest), semantic_pairs=closest, embedder=embedder)


def _closest(pairs: Sequence[LeakPair]) -> tuple[LeakPair, ...]:
    """Return the closest pair of each test row, closest first."""
    best: dict[int, LeakPair] = {}
    for pair in sorted(pairs, key=lambda pair: (-pair.cosine, pair.test, pair.train)):
        best.setdefault(pair.test, pair)
    return tuple(best.values())


def _shown(pairs: Sequence[LeakPair], how: str) -> list[str]:
    lines = [
        f"  test {pair.test + 1} ~ train {pair.train + 1}  cosine {pair.cosine:.3f}{how}"
        for pair in pairs[:_SHOWN]
    ]
    more = len(pairs) - len(lines)
    return [*lines, *([f"  and {more:,} more"] if more > 0 else [])]
