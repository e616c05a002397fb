"""Vectors of any number of texts, fitted once on a sample: each word has one, a text adds them up.

The vector of a word is its row, and that of its letters' n-grams, on the sample's first right
singular vectors (LSA: Deerwester et al. 1990). A word the sample lacks is known by its letters. So
a million texts take seconds and the vectors of two calls can be compared, unlike tf-idf's; the
order of words is not seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.inference.tfidf_embed import right_vectors

Vectors = NDArray[np.float32]
_WORD = re.compile(r"\w+|[^\w\s]+")
_SIZES = (3, 4, 5)  # letters of an n-gram
_LONGEST = 2000  # characters of a text that are read
_LETTERS = 30  # characters of a word that are read
_COMMON = 2  # texts of the sample a word or n-gram must be in, where there are many
_MANY = 500


class WordSpace:
    """A fitted space: `project` gives unit rows, shape (N, D). `dimensions` is D."""

    def __init__(
        self, words: dict[str, int], vectors: Vectors, grams: dict[str, int], letters: Vectors
    ) -> None:
        self._words = words
        self._vectors = vectors  # (V, D)
        self._grams = grams
        self._letters = letters  # (G, D), times the rarity of each n-gram

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return int(self._vectors.shape[1])

    def project(self, texts: Sequence[str]) -> Vectors:
        """Return one unit row a text, zeros for a text without a word; shape (N, D)."""
        known, new, counts = _bag(texts, self._words)
        table = self._vectors
        if new:
            table = np.concatenate([table, _spell(new, self._grams) @ self._letters])
        summed: Vectors = (counts[:, : len(known) + len(new)] @ table).astype(np.float32)
        return _unit(summed)


def fit_word_space(texts: Sequence[str], dimensions: int = 128, seed: int = 7) -> WordSpace:
    """Return the space of a sample of texts, a few ten thousand at most.

    Weights are (1 + ln tf) · (ln((1 + N) / (1 + df)) + 1) (Salton & Buckley 1988; smoothed); words
    and letters count alike on average.
    """
    from scipy.sparse import diags, hstack
    from threadpoolctl import threadpool_limits

    _, new, counts = _bag(texts, {})
    words = {word: index for index, word in enumerate(new)}
    grams = _all_grams(new)
    spelled = _spell(new, grams)
    least = _COMMON if len(texts) > _MANY else 1
    rarity = _rarity(_spread(counts), len(texts), least)
    letter_rarity = _rarity(_spread(counts @ spelled), len(texts), least)
    word_part = diags(rarity)
    letter_part = spelled @ diags(letter_rarity)
    sizes = [_mean_norm(counts @ part) for part in (word_part, letter_part)]
    letter_part = letter_part * np.float32(sizes[0] / max(sizes[1], 1e-9))
    features = hstack([word_part, letter_part], format="csr").astype(np.float32)  # (V, V + G)
    matrix = _unit_rows(counts @ features)
    size = max(1, min(dimensions, matrix.shape[0] - 1, matrix.shape[1] - 1))
    with threadpool_limits(1, user_api="blas"):  # threads that wait for a busy core cost tenfold
        right = right_vectors(matrix, size, 2, np.random.default_rng(seed))
        vectors: Vectors = np.asarray(features @ right, dtype=np.float32)
    scale = (letter_rarity * sizes[0] / max(sizes[1], 1e-9)).astype(np.float32)
    letters: Vectors = right[len(new) :] * scale[:, None]
    return WordSpace(words, vectors, grams, letters)


def _bag(texts: Sequence[str], words: dict[str, int]) -> tuple[dict[str, int], list[str], Any]:
    """Return the known words, the new ones in order, and 1 + ln tf of each word: CSR (N, V)."""
    from scipy.sparse import csr_matrix

    fresh: dict[str, int] = {}
    start = len(words)
    columns: list[int] = []
    ends = [0]
    for text in texts:
        for word in _WORD.findall(text[:_LONGEST].lower()):
            index = words.get(word)
            if index is None:
                index = start + fresh.setdefault(word, len(fresh))
            columns.append(index)
        ends.append(len(columns))
    shape = (len(texts), max(start + len(fresh), 1))
    data = np.ones(len(columns), dtype=np.float32)
    counts = csr_matrix((data, np.array(columns, np.int32), np.array(ends, np.int64)), shape=shape)
    counts.sum_duplicates()
    counts.data = 1 + np.log(counts.data)
    return words, list(fresh), counts


def _cut(word: str) -> list[str]:
    padded = f" {word[:_LETTERS]} "
    return [padded[at : at + n] for n in _SIZES for at in range(max(len(padded) - n + 1, 0))]


def _all_grams(words: Sequence[str]) -> dict[str, int]:
    grams: dict[str, int] = {}
    for word in words:
        for gram in _cut(word):
            grams.setdefault(gram, len(grams))
    return grams


def _spell(words: Sequence[str], grams: dict[str, int]) -> Any:
    """Return how often each known n-gram is in each word with a space on both sides, CSR."""
    from scipy.sparse import csr_matrix

    columns: list[int] = []
    ends = [0]
    for word in words:
        columns += [index for gram in _cut(word) if (index := grams.get(gram)) is not None]
        ends.append(len(columns))
    data = np.ones(len(columns), dtype=np.float32)
    shape = (len(words), max(len(grams), 1))
    counts = csr_matrix((data, np.array(columns, np.int32), np.array(ends, np.int64)), shape=shape)
    counts.sum_duplicates()
    return counts


def _spread(counts: Any) -> NDArray[np.int64]:
    """Return in how many rows each column is."""
    spread: NDArray[np.int64] = np.bincount(counts.indices, minlength=counts.shape[1])
    return spread


def _rarity(spread: NDArray[np.int64], total: int, least: int) -> NDArray[np.float32]:
    rarity = np.log((1 + total) / (1 + spread)) + 1
    rarity[spread < least] = 0.0
    kept: NDArray[np.float32] = rarity.astype(np.float32)
    return kept


def _mean_norm(matrix: Any) -> float:
    return float(np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1))).mean())


def _unit_rows(matrix: Any) -> Any:
    from sklearn.preprocessing import normalize

    return normalize(matrix, copy=False)


def _unit(rows: Vectors) -> Vectors:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Vectors = rows / np.maximum(norms, 1e-12).astype(np.float32)
    return unit
