"""The embedder that every installation has: tf-idf of words and letters, reduced (LSA).

Each distinct word is cut into n-grams once, so texts of one domain, which repeat their words,
take a fraction of the time. No model, no GPU, any language that puts spaces between words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.inference.base import OnBatch

FIT_ROWS = 20_000  # the reduction is fitted on this many texts at most; all are projected
_SPARE = 16  # dimensions of the sketch beyond those asked for
_MANY = 500  # texts from which on an n-gram must be in two of them
_SIZES = (3, 4, 5)  # letters of an n-gram
_WORD = re.compile(r"\w+|[^\w\s]+")


class TfidfEmbedder:
    """Words and character n-grams, tf-idf, reduced by a truncated SVD (LSA). No model, no GPU.

    It is fitted on the texts of each call: vectors of two calls can't be compared.
    """

    fingerprint: str | None = None

    def __init__(self, dimensions: int = 256, seed: int = 7, fit_rows: int = FIT_ROWS) -> None:
        self._dimensions, self._seed, self._fit_rows = dimensions, seed, fit_rows

    def embed(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> NDArray[np.float32]:
        """Return one L2-normalised row a text, shape (N, D), D at most `dimensions`."""
        if not texts:
            return np.zeros((0, 1), dtype=np.float32)
        vectors = reduce(tfidf(texts), self._dimensions, self._seed, fit_rows=self._fit_rows)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
        if on_batch is not None:
            on_batch(len(texts), len(texts))
        return unit


def tfidf(texts: Sequence[str]) -> Any:
    """Return words and pairs of words beside n-grams inside words: CSR (N, V), float32.

    Weights are (1 + ln tf) · (ln((1 + N) / (1 + df)) + 1) (Salton & Buckley 1988; smoothed), unit
    length in each of the two parts. An n-gram of a single text is left out if there are many.
    """
    from scipy.sparse import hstack

    vocabulary: dict[str, int] = {}
    rows: list[list[int]] = [
        [vocabulary.setdefault(word, len(vocabulary)) for word in _WORD.findall(text.lower())]
        for text in texts
    ]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    flat = np.fromiter((word for row in rows for word in row), np.int64, int(lengths.sum()))
    owner = np.repeat(np.arange(len(texts)), lengths)
    size = max(len(vocabulary), 1)
    words = _counts(owner, flat, (len(texts), size))
    joined = owner[1:] == owner[:-1]
    pairs, column = np.unique(flat[:-1][joined] * size + flat[1:][joined], return_inverse=True)
    bigrams = _counts(owner[1:][joined], column, (len(texts), max(len(pairs), 1)))
    letters = words @ _spelled(list(vocabulary), size)
    whole = hstack([words, bigrams], format="csr")
    return hstack([_weighted(whole), _weighted(letters)], format="csr")


def _counts(rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> Any:
    """Return how often each column is in each row, CSR."""
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)


def _spelled(words: Sequence[str], size: int) -> Any:
    """Return how often each n-gram is in each word with a space on both sides, CSR."""
    grams: dict[str, int] = {}
    found: list[list[int]] = []
    for word in words:
        padded = f" {word} "
        found.append(
            [
                grams.setdefault(padded[at : at + n], len(grams))
                for n in _SIZES
                for at in range(max(len(padded) - n + 1, 0))
            ]
        )
    lengths = [len(row) for row in found]
    columns = np.fromiter((gram for row in found for gram in row), np.int64, sum(lengths))
    return _counts(np.repeat(np.arange(len(words)), lengths), columns, (size, max(len(grams), 1)))


def _weighted(counts: Any) -> Any:
    """Return counts as unit rows of tf-idf, the columns of a single text left out if many."""
    from sklearn.preprocessing import normalize

    total = counts.shape[0]
    spread = np.bincount(counts.indices, minlength=counts.shape[1])
    weighted = counts.astype(np.float32)
    inverse = np.log((1 + total) / (1 + spread)) + 1
    weighted.data = ((1 + np.log(counts.data)) * inverse[counts.indices]).astype(np.float32)
    if total > _MANY:
        weighted = weighted[:, np.flatnonzero(spread > 1)]
    return normalize(weighted, copy=False)


def reduce(
    matrix: Any, dimensions: int, seed: int = 7, rounds: int = 2, fit_rows: int = FIT_ROWS
) -> NDArray[np.float32]:
    """Return the rows of a sparse matrix on its first right singular vectors, shape (N, D).

    A randomised SVD (Halko, Martinsson, Tropp 2011, algorithm 4.4) whose last step is the
    eigenproblem of a D × D matrix. With more than `fit_rows` rows the vectors are those of
    a sample.
    """
    from threadpoolctl import threadpool_limits

    rows, columns = matrix.shape
    size = min(dimensions, columns - 1, rows - 1)
    if size < 2:
        dense: NDArray[np.float32] = matrix.toarray().astype(np.float32)
        return dense
    rng = np.random.default_rng(seed)
    sample = matrix
    if rows > fit_rows:
        sample = matrix[np.sort(rng.choice(rows, fit_rows, replace=False))]
    with threadpool_limits(1, user_api="blas"):  # threads that wait for a busy core cost tenfold
        right = right_vectors(sample, size, rounds, rng)
    reduced: NDArray[np.float32] = matrix @ right
    return reduced


def right_vectors(
    sample: Any, size: int, rounds: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the first `size` right singular vectors of a sparse matrix, shape (V, D)."""
    width = min(size + _SPARE, *sample.shape)
    transposed = sample.T.tocsr()
    basis = rng.standard_normal((sample.shape[1], width), dtype=np.float32)
    for _ in range(rounds):
        basis = transposed @ np.linalg.qr(sample @ basis)[0]
    left = np.linalg.qr(sample @ basis)[0]
    projected = transposed @ left  # (V, W): sample ≈ left @ projected.T
    values, vectors = np.linalg.eigh((projected.T @ projected).astype(np.float64))
    top = np.argsort(-values)[:size]
    scale = np.sqrt(np.maximum(values[top], 1e-12))
    right: NDArray[np.float32] = projected @ (vectors[:, top] / scale).astype(np.float32)
    return right
