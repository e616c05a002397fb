"""Near-duplicates: texts that are the same but for typos, the order of words, case, a small word.

Candidates come from minhash.py. A pair is near if the share of letters that agree (one minus the
optimal string alignment distance over the longer length: Damerau 1964 without repeated edits)
reaches the threshold, or a stricter one with the words sorted and fillers left out. A guard keeps
apart what differs in a number, a unit or a negation (facts.py), or puts one word for another
(wording.py). Nothing is dropped here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.core.example import normalise
from tutelage.data.dedup.base import Pairs
from tutelage.data.dedup.facts import digits, same_facts
from tutelage.data.dedup.minhash import candidates
from tutelage.data.dedup.wording import same_words, words_in_order

_CHUNK = 200_000  # pairs compared at once
_ORDER = 0.5  # with the words sorted only this share of the letters may differ
_THREADED = 20_000  # from this many pairs on all cores compare


class NearDuplicates:
    """Finds texts that say the same in almost the same letters.

    `threshold` is the share of letters that agree, in percent. Without `guard` numbers, negations
    and words that were replaced are letters like any other.
    """

    def __init__(self, threshold: float = 80.0, *, guard: bool = True) -> None:
        self._threshold = threshold
        self._guard = guard

    def pairs(self, texts: Sequence[str]) -> Pairs:
        """Return the near-duplicate pairs i < j, sorted, shape (P, 2)."""
        clean = [normalise(text) for text in texts]
        numbers = [digits(text) for text in clean]
        found = candidates(clean, self._threshold, numbers)
        if self._guard:
            found = found[_equal(numbers, found)]
        return self._verified(clean, found)

    def between(self, left: Sequence[str], right: Sequence[str]) -> Pairs:
        """Return the near-duplicate pairs (i of left, j of right), sorted, shape (P, 2)."""
        clean = [normalise(text) for text in (*left, *right)]
        numbers = [digits(text) for text in clean]
        found = candidates(clean, self._threshold, numbers)
        found = found[(found[:, 0] < len(left)) & (found[:, 1] >= len(left))]
        if self._guard:
            found = found[_equal(numbers, found)]
        pairs: Pairs = self._verified(clean, found) - np.array([0, len(left)])
        return pairs

    def same(self, left: Sequence[str], right: Sequence[str]) -> list[bool]:
        """Return of each position whether the two texts there are near-duplicates."""
        clean = [normalise(text) for text in (*left, *right)]
        place = np.arange(len(left))
        found = self._verified(clean, np.stack([place, place + len(left)], axis=1))
        near = set(found[:, 0].tolist())
        return [index in near for index in range(len(left))]

    def like(self, text: str, texts: Sequence[str]) -> list[int]:
        """Return the positions of the texts that are near-duplicates of `text`, every one."""
        both = [normalise(text), *(normalise(other) for other in texts)]
        pairs = np.stack([np.zeros(len(texts), np.int64), np.arange(1, len(both))], axis=1)
        return [j - 1 for _, j in self._verified(both, pairs).tolist()]

    def _verified(self, clean: Sequence[str], found: Pairs) -> Pairs:
        """Return those of the pairs that are near-duplicates."""
        cut = self._threshold / 100
        lengths = np.fromiter(map(len, clean), np.int64, len(clean))[found]
        found = found[lengths.min(axis=1) >= lengths.max(axis=1) * cut]
        near = _agree(clean, found, cut)
        rest = np.flatnonzero(~near)
        ordered = _words_sorted(clean, found[rest])
        near[rest] = _agree(ordered, found[rest], 1 - _ORDER * (1 - cut))
        close: Pairs = found[near]
        if self._guard and len(close):
            close = close[[_mean_the_same(clean[i], clean[j]) for i, j in close.tolist()]]
        return close


def clusters(count: int, pairs: Pairs | Sequence[tuple[int, int]]) -> list[int]:
    """Return for each of `count` items the lowest index of its connected cluster."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    ones = np.ones(len(edges), dtype=np.int8)
    graph = coo_matrix((ones, (edges[:, 0], edges[:, 1])), shape=(count, count))
    component = connected_components(graph, directed=False)[1]
    _, first = np.unique(component, return_index=True)
    roots: list[int] = first[component].tolist()
    return roots


def _agree(texts: Sequence[str] | dict[int, str], pairs: Pairs, cut: float) -> NDArray[np.bool_]:
    """Return which pairs have at least the share `cut` of their letters in common, shape (P,)."""
    from rapidfuzz.distance import OSA
    from rapidfuzz.process import cpdist

    out = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), _CHUNK):
        part = pairs[start : start + _CHUNK]
        out[start : start + len(part)] = cpdist(
            [texts[i] for i in part[:, 0].tolist()],
            [texts[j] for j in part[:, 1].tolist()],
            scorer=OSA.normalized_similarity,
            score_cutoff=cut,
            workers=-1 if len(part) >= _THREADED else 1,
            dtype=np.float32,
        )
    return out


def _mean_the_same(one: str, two: str) -> bool:
    """Return whether two close texts differ in nothing that changes what they say."""
    return one == two or (same_facts(one, two) and same_words(one, two))


def _equal(values: Sequence[tuple[str, ...]], pairs: Pairs) -> NDArray[np.bool_]:
    """Return which pairs have equal values, shape (P,)."""
    known: dict[tuple[str, ...], int] = {}
    number = np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)
    same: NDArray[np.bool_] = number[pairs[:, 0]] == number[pairs[:, 1]]
    return same


def _words_sorted(texts: Sequence[str], pairs: Pairs) -> dict[int, str]:
    """Return the texts that occur in `pairs`, their words in order, by position."""
    return {i: words_in_order(texts[i]) for i in np.unique(pairs).tolist()}
