"""Near-duplicates: texts that say the same in almost the same letters.

Candidates share a band of their MinHash signature (Broder 1997; character 5-grams, 128
permutations, 32 bands of 4); each is then verified with rapidfuzz's ratio. A guard keeps apart
what differs in a number or a negation: "5 mg" and "50 mg" are close in letters, not in meaning.
Near-duplicates are never dropped here: they are put in clusters that stay on one side of a split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from tutelage.core.example import normalise

Pair = tuple[int, int]
_NGRAM = 5
_PERMUTATIONS = 128
_BANDS = 32
_CHUNK = 4000  # texts hashed at once
_ALL_PAIRS = 40  # in a larger bucket only neighbours are compared
_PRIME = np.uint64((1 << 61) - 1)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = re.compile(r"\b(?:not|no|never|none|without|cannot|neither|nor)\b|n't\b")


class NearDuplicates:
    """Finds pairs of near-duplicates. `threshold` is rapidfuzz's ratio in percent."""

    def __init__(self, threshold: float = 80.0, *, guard: bool = True) -> None:
        self._threshold = threshold
        self._guard = guard

    def pairs(self, texts: Sequence[str]) -> list[Pair]:
        """Return the pairs (i < j) that are near-duplicates."""
        from rapidfuzz import fuzz, process

        clean = [normalise(text) for text in texts]
        candidates = sorted(set(_candidates(_signatures(clean))))
        if not candidates:
            return []
        ratios = process.cpdist(
            [clean[i] for i, _ in candidates],
            [clean[j] for _, j in candidates],
            scorer=fuzz.ratio,
            score_cutoff=self._threshold,
        )
        close = [pair for pair, ratio in zip(candidates, ratios, strict=True) if ratio > 0]
        if not self._guard:
            return close
        facts = [_facts(text) for text in clean]
        return [(i, j) for i, j in close if facts[i] == facts[j]]


def clusters(count: int, pairs: Sequence[Pair]) -> list[int]:
    """Return for each of `count` items the lowest index of its connected cluster (union-find)."""
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for one, two in pairs:
        low, high = sorted((root(one), root(two)))
        parent[high] = low
    return [root(item) for item in range(count)]


def _facts(text: str) -> tuple[tuple[str, ...], int]:
    """Return what may not differ: the numbers in order, and how often the text negates."""
    return tuple(_NUMBER.findall(text)), len(_NEGATION.findall(text))


def _signatures(texts: Sequence[str], seed: int = 1) -> NDArray[np.uint64]:
    """Return MinHash signatures, shape (N, 128); equal texts have equal signatures."""
    rng = np.random.default_rng(seed)
    high = int(_PRIME)
    multiply = rng.integers(1, high, _PERMUTATIONS, dtype=np.uint64) | np.uint64(1)
    add = rng.integers(0, high, _PERMUTATIONS, dtype=np.uint64)
    out = np.empty((len(texts), _PERMUTATIONS), dtype=np.uint64)
    for start in range(0, len(texts), _CHUNK):
        shingles, starts = _shingles(texts[start : start + _CHUNK])
        for k in range(_PERMUTATIONS):  # multiply-shift hashing: overflow is wanted
            hashed = (shingles * multiply[k] + add[k]) >> np.uint64(16)
            out[start : start + len(starts), k] = np.minimum.reduceat(hashed, starts)
    return out


def _shingles(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the hashes of all texts' 5-grams in a row, and where each text's begin."""
    padded = [f" {text} ".ljust(_NGRAM) for text in texts]
    joined = "".join(padded)
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.array([len(text) for text in padded])
    ends = np.cumsum(lengths)
    rolling = np.zeros(len(codes) - _NGRAM + 1, dtype=np.uint64)
    for offset in range(_NGRAM):
        rolling = rolling * np.uint64(1_000_003) + codes[offset : offset + len(rolling)]
    rolling ^= rolling >> np.uint64(29)
    rolling *= np.uint64(0xBF58476D1CE4E5B9)
    inside = np.ones(len(rolling), dtype=bool)  # grams that do not run into the next text
    for back in range(1, _NGRAM):
        inside[ends[:-1] - back] = False
    counts = lengths - _NGRAM + 1
    return rolling[inside], np.concatenate([[0], np.cumsum(counts)[:-1]])


def _candidates(signatures: NDArray[np.uint64]) -> Iterator[Pair]:
    """Yield pairs that share a band."""
    rows = _PERMUTATIONS // _BANDS
    for band in range(_BANDS):
        part = signatures[:, band * rows : (band + 1) * rows]
        key = part[:, 0].copy()
        for column in range(1, rows):
            key = key * np.uint64(0x9E3779B97F4A7C15) + part[:, column]
        order = np.argsort(key, kind="stable")
        edges = np.flatnonzero(np.diff(key[order])) + 1
        for bucket in np.split(order, edges):
            if len(bucket) < 2:
                continue
            items = [int(i) for i in np.sort(bucket)]
            if len(items) <= _ALL_PAIRS:
                yield from combinations(items, 2)
            else:
                yield from pairwise(items)
                yield from ((items[0], item) for item in items[2:])
