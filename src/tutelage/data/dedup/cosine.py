"""All pairs of texts above a cosine of character n-grams, exactly, without comparing all pairs.

The features of a text are put in order of rarity. If two unit vectors have a cosine of t or more,
the rarest feature they share lies, for both, outside the most common features whose norm is below
t (otherwise all they share would lie in a part too short to reach t). So only texts that share a
rare feature are compared (prefix filtering: Bayardo, Ma, Srikant 2007).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_PAIRS = 4_000_000  # candidate pairs held at once
_CHUNK = 20_000  # pairs whose bound is computed at once
_BUCKET_BITS = 8


def vectorise(fit: Sequence[str], *others: Sequence[str]) -> list[Any]:
    """Return L2-normalised tf-idf matrices of char_wb(3,5), one a list, fitted on the first."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), dtype=np.float64)
    try:
        first = vectoriser.fit_transform(fit)
    except ValueError:  # no text has three characters
        from scipy.sparse import csr_matrix

        return [csr_matrix((len(part), 1)) for part in (fit, *others)]
    return [first, *(vectoriser.transform(part) for part in others)]


def similar_pairs(
    left: Any, right: Any, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return (rows of left, rows of right, cosines) of every pair at or above `threshold`.

    `left` and `right` are CSR matrices with unit rows over the same features, shapes (N, V) and
    (M, V). With the same object twice only pairs i < j are returned.
    """
    same = left is right
    frequency = np.bincount(right.indices, minlength=right.shape[1])
    if not same:
        frequency = frequency + np.bincount(left.indices, minlength=left.shape[1])
    rank = np.argsort(np.argsort(-frequency, kind="stable"), kind="stable")  # 0: most common
    one = _rare_part(left, rank, threshold)
    two = (one if same else _rare_part(right, rank, threshold)).T.tocsr()
    folded = (_fold(left), _fold(right))
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    for start, stop in _blocks(one, two):
        candidates = (one[start:stop] @ two).tocoo()
        i, j = candidates.row.astype(np.int64) + start, candidates.col.astype(np.int64)
        if same:
            i, j = i[i < j], j[i < j]
        for a, b in _possible(i, j, folded, threshold):
            cosine = np.asarray(left[a].multiply(right[b]).sum(axis=1)).ravel()
            near = cosine >= threshold - 1e-12
            found.append((a[near], b[near], cosine[near]))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64)
    rows, columns, cosines = (np.concatenate(part) for part in zip(*found, strict=True))
    return rows, columns, cosines


def _rare_part(matrix: Any, rank: NDArray[np.int64], threshold: float) -> Any:
    """Return a 0/1 matrix of each row's rare features: the rest has a norm below threshold."""
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((rank[matrix.indices], rows))  # most common first within a row
    squares = matrix.data[order] ** 2
    running = np.cumsum(squares)
    starts = matrix.indptr[:-1]
    before = np.where(starts > 0, running[np.maximum(starts, 1) - 1], 0.0)
    within = running - np.repeat(before, np.diff(matrix.indptr))
    rare = within >= threshold**2 - 1e-9
    keep = order[rare]
    ones = np.ones(len(keep), dtype=np.int32)
    return csr_matrix((ones, (rows[keep], matrix.indices[keep])), shape=matrix.shape)


def _fold(matrix: Any) -> NDArray[np.float32]:
    """Return the norm of each row's features in each of _BUCKETS buckets, shape (N, buckets)."""
    from scipy.sparse import csr_matrix

    columns = matrix.shape[1]
    bucket = (np.arange(columns, dtype=np.uint64) * np.uint64(2654435761)) % np.uint64(2**32)
    bucket = (bucket >> np.uint64(32 - _BUCKET_BITS)).astype(np.int64)
    into = csr_matrix(
        (np.ones(columns), (np.arange(columns), bucket)), shape=(columns, 1 << _BUCKET_BITS)
    )
    norms: NDArray[np.float32] = np.sqrt(matrix.power(2) @ into).toarray().astype(np.float32)
    return norms


def _possible(
    i: NDArray[np.int64],
    j: NDArray[np.int64],
    folded: tuple[NDArray[np.float32], NDArray[np.float32]],
    threshold: float,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pairs whose upper bound reaches the threshold (Cauchy-Schwarz per bucket)."""
    left, right = folded
    for k in range(0, len(i), _CHUNK):
        a, b = i[k : k + _CHUNK], j[k : k + _CHUNK]
        bound = np.einsum("ij,ij->i", left[a], right[b])
        near = bound >= threshold - 1e-5
        if near.any():
            yield a[near], b[near]


def _blocks(one: Any, two: Any) -> list[tuple[int, int]]:
    """Cut the rows of `one` so that a block meets at most about _BLOCK_PAIRS candidates."""
    lengths = np.diff(two.indptr)
    cost = np.add.reduceat(
        np.append(lengths[one.indices], 0), np.minimum(one.indptr[:-1], len(one.indices))
    )
    cost[np.diff(one.indptr) == 0] = 0
    total = np.cumsum(cost)
    cuts = [0]
    while cuts[-1] < one.shape[0]:
        base = total[cuts[-1] - 1] if cuts[-1] else 0
        step = int(np.searchsorted(total, base + _BLOCK_PAIRS, side="right"))
        cuts.append(min(one.shape[0], max(step, cuts[-1] + 1)))
    return list(pairwise(cuts))
