"""Character n-grams of texts, counted and weighted by tf-idf: the vectors that cosines compare.

The same features and weights as scikit-learn's TfidfVectorizer(analyzer="char_wb", ngram_range=(3,
5)) on normalised text. Each distinct word is cut into n-grams once, so texts of one domain, which
repeat their words, take a fraction of the time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.example import normalise

_SIZES = (3, 4, 5)  # characters of an n-gram


def vectorise(fit: Sequence[str], *others: Sequence[str]) -> list[Any]:
    """Return L2-normalised tf-idf matrices, one a list of texts, fitted on the first list."""
    return weigh(*count_grams(fit, *others))


def count_grams(*parts: Sequence[str]) -> list[Any]:
    """Return how often each n-gram is in each text: a float32 CSR matrix a part, shape (N, V).

    N-grams stay inside a word, which has a space put on both sides (char_wb). All parts have the
    same columns.
    """
    from scipy.sparse import csr_matrix

    words: dict[str, int] = {}
    found = [_cut(((normalise(text).split()) for text in part), words) for part in parts]
    grams: dict[str, int] = {}
    spelled = _matrix(_cut((_ngrams(f" {word} ") for word in words), grams), len(grams))
    return [csr_matrix(_matrix(cut, len(words)) @ spelled) for cut in found]


def weigh(fit: Any, *others: Any, unseen: bool = False) -> list[Any]:
    """Return the counts of n-grams as unit vectors, weighted by their rarity in `fit`.

    The weight of an n-gram that is in d of the n rows of `fit` is ln((1 + n) / (1 + d)) + 1; one
    that is in none of them is left out, unless `unseen` keeps it.
    """
    spread = np.bincount(fit.indices, minlength=fit.shape[1])
    idf = np.log((1 + fit.shape[0]) / (1 + spread)) + 1
    if not unseen:
        idf[spread == 0] = 0.0
    return [_unit(counts, idf.astype(np.float32)) for counts in (fit, *others)]


def _unit(counts: Any, idf: NDArray[np.float32]) -> Any:
    from scipy.sparse import csr_matrix

    data = counts.data * idf[counts.indices]
    lengths = np.diff(counts.indptr)
    squares = np.zeros(len(lengths))
    filled = lengths > 0
    squares[filled] = np.add.reduceat(data.astype(np.float64) ** 2, counts.indptr[:-1][filled])
    norms = np.sqrt(np.where(squares > 0, squares, 1.0)).astype(np.float32)
    data /= np.repeat(norms, lengths)
    matrix = csr_matrix((data, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)
    matrix.eliminate_zeros()
    return matrix


def _ngrams(padded: str) -> list[str]:
    return [
        padded[start : start + size] for size in _SIZES for start in range(len(padded) - size + 1)
    ]


def _cut(items: Iterator[list[str]], known: dict[str, int]) -> tuple[array[int], array[int]]:
    """Return the numbers of all pieces in a row and where each item ends; `known` grows."""
    pieces, ends = array("i"), array("q", [0])
    for item in items:
        pieces.extend([known.setdefault(piece, len(known)) for piece in item])
        ends.append(len(pieces))
    return pieces, ends


def _matrix(cut: tuple[array[int], array[int]], columns: int) -> Any:
    """Return the counts of pieces as a CSR matrix."""
    from scipy.sparse import csr_matrix

    pieces, ends = (np.asarray(part) for part in cut)
    shape = (len(ends) - 1, columns)
    matrix = csr_matrix((np.ones(len(pieces), np.float32), pieces, ends), shape=shape)
    matrix.sum_duplicates()
    return matrix
