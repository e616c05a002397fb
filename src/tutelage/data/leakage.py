"""The leak certificate: which test texts have an exact, near or semantic twin in train.

Near means a cosine of at least 0.90 between tf-idf vectors of character n-grams (char_wb, 3 to 5,
fitted on the training texts). Every pair is found; nothing is sampled. Semantic, where an embedder
is named, means a cosine of at least 0.95 between embeddings: the same request in other words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    left, right = vectorise(train, test)
    rows = len(train), len(test)
    found = certificate(find_twins(train, test, left, right, threshold), rows, threshold)
    if semantic is None:
        return found
    from tutelage.inference.embed import load_embedder, resolve

    name = resolve(semantic, len(train) + len(test))
    vectors = load_embedder(name).embed([*train, *test])
    return with_meaning(found, vectors[: len(train)], vectors[len(train) :], name)


@dataclass(frozen=True)
class Twins:
    """Every row with an exact or near twin, and its closest one: by test row and by train row.

    `exact` are the test rows whose twin is exact.
    """

    of_test: dict[int, LeakPair]
    of_train: dict[int, LeakPair]
    exact: frozenset[int]


def find_twins(
    train: Sequence[str],
    test: Sequence[str],
    left: Any,
    right: Any,
    threshold: float = THRESHOLD,
) -> Twins:
    """Return all rows that have a twin. Equal texts have the cosine 1, and are compared once.

    `left` and `right` are the texts as `tfidf.weigh` gives them.
    """
    import numpy as np

    from tutelage.data.dedup.cosine import similar_pairs

    ours, theirs = _by_text(train), _by_text(test)
    one, two = ([rows[0] for rows in part.values()] for part in (ours, theirs))
    left = left if len(one) == len(train) else left[one]
    right = right if len(two) == len(test) else right[two]
    i, j, cosine = similar_pairs(left, right, threshold)
    place = {text: index for index, text in enumerate(ours)}
    same = [(place[text], index) for index, text in enumerate(theirs) if text in place]
    equal = np.array(same, dtype=np.int64).reshape(-1, 2)
    i, j = np.concatenate([equal[:, 0], i]), np.concatenate([equal[:, 1], j])
    cosine = np.concatenate([np.full(len(equal), 2.0), np.minimum(cosine, 1.0)])  # exact first
    of_test: dict[int, LeakPair] = {}
    of_train: dict[int, LeakPair] = {}
    groups = list(ours.values()), list(theirs.values())
    for index in _firsts(j, i, cosine):
        for row in groups[1][j[index]]:
            of_test[row] = _pair(groups[0][i[index]][0], row, cosine[index])
    for index in _firsts(i, j, cosine):
        for row in groups[0][i[index]]:
            of_train[row] = _pair(row, groups[1][j[index]][0], cosine[index])
    exact = frozenset(row for _, index in same for row in groups[1][index])
    return Twins(of_test, of_train, exact)


def _by_text(texts: Sequence[str]) -> dict[str, list[int]]:
    """Return the positions of each distinct normalised text."""
    found: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        found.setdefault(normalise(text), []).append(index)
    return found


def _firsts(
    of: NDArray[np.int64], other: NDArray[np.int64], cosine: NDArray[np.float64]
) -> list[int]:
    """Return the place of the highest cosine of each value in `of`."""
    import numpy as np

    order = np.lexsort((other, -cosine, of))
    first = np.unique(of[order], return_index=True)[1]
    places: list[int] = order[first].tolist()
    return places


def _pair(train: int, test: int, cosine: float) -> LeakPair:
    return LeakPair(train, test, round(min(float(cosine), 1.0), 6))


def certificate(
    found: Twins, rows: tuple[int, int], threshold: float = THRESHOLD
) -> LeakCertificate:
    """Return the certificate for the twins of two lists of so many rows."""
    closest = _closest_first(found.of_test.values())
    return LeakCertificate(len(found.exact), len(closest), *rows, threshold, closest)


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
    closest = _closest_first(best)
    return replace(found, semantic=len(closest), semantic_pairs=closest, embedder=embedder)


def _closest_first(pairs: Iterable[LeakPair]) -> tuple[LeakPair, ...]:
    return tuple(sorted(pairs, key=lambda pair: (-pair.cosine, pair.test)))


def _shown(pairs: Sequence[LeakPair], how: str) -> list[str]:
    lines = [
        f"  test {pair.test + 1} ~ train {pair.train + 1}  cosine {pair.cosine:.3f}{how}"
        for pair in pairs[:_SHOWN]
    ]
    more = len(pairs) - len(lines)
    return [*lines, *([f"  and {more:,} more"] if more > 0 else [])]
