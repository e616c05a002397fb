"""All pairs of vectors above a cosine, exactly, without comparing all pairs.

The features of a row are put in order of rarity. If two rows of norm 1 or less have a product of t
or more, the rarest feature they share lies, for both, outside the most common features whose norm
is below t (otherwise all they share would lie in a part too short to reach t). So only rows that
share a rare feature are compared (prefix filtering: Bayardo, Ma, Srikant 2007).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]

_NONE: Pairs = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))
_BLOCK_PAIRS = 4_000_000  # candidate pairs held at once
_CHUNK = 20_000  # pairs whose bound is computed at once
_BUCKETS = 128  # parts of a row that the bound is made of
_ROUNDING = 1e-6  # of a cosine of float32 vectors


def similar_pairs(
    left: Any, right: Any, threshold: float, clusters: Sequence[int] | None = None
) -> Pairs:
    """Return (rows of left, rows of right, cosines) of every pair at or above `threshold`.

    `left` and `right` are CSR matrices with unit rows over the same features, shapes (N, V) and
    (M, V), float32. With the same object twice only pairs i < j are returned. A cosine within 1e-6
    below the threshold counts as reaching it.

    With `clusters`, the cluster of each row of the one matrix, pairs inside a cluster are left
    out, and clusters grow with what is found: enough to join all that belongs together.
    """
    same = left is right
    name = None if clusters is None else np.asarray(clusters, dtype=np.int64)
    left, right = _by_rarity(left, right)
    one = _rare_part(left, threshold)
    two = (one if same else _rare_part(right, threshold)).T.tocsr()
    fold = _fold(left)
    folded = fold, fold if same else _fold(right)
    found = [_NONE]
    for start, stop in _blocks(one, two):
        candidates = (one[start:stop] @ two).tocoo()
        i, j = candidates.row.astype(np.int64) + start, candidates.col.astype(np.int64)
        if same:
            i, j = i[i < j], j[i < j]
        if name is not None:
            apart = name[i] != name[j]
            i, j = i[apart], j[apart]
        for a, b in _possible(i, j, folded, threshold):
            cosine = np.asarray(left[a].multiply(right[b]).sum(axis=1)).ravel()
            near = cosine >= threshold - _ROUNDING
            found.append((a[near], b[near], cosine[near].astype(np.float64)))
        if name is not None:
            found = [_together(found)]
            name = _joined(name, *found[0][:2])
    return _together(found)


def _together(parts: Sequence[Pairs]) -> Pairs:
    rows, columns, cosines = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, columns, cosines


def _joined(
    name: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the clusters after those of a[k] and b[k] became one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(name)
    graph = coo_matrix((np.ones(len(a), np.int8), (name[a], name[b])), shape=(count, count))
    joined: NDArray[np.int64] = connected_components(graph, directed=False)[1][name]
    return joined.astype(np.int64)


def _by_rarity(left: Any, right: Any) -> tuple[Any, Any]:
    """Return both with the features that two rows can share, the most common first in a row."""
    count = left.shape[1]
    here = np.bincount(left.indices, minlength=count)
    if left is right:
        shared, frequency = here > 1, here
    else:
        there = np.bincount(right.indices, minlength=count)
        shared, frequency = (here > 0) & (there > 0), here + there
    order = np.argsort(-frequency, kind="stable")
    order = order[shared[order]]
    rank = np.full(count, -1, dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    one = _renamed(left, rank, len(order))
    return one, one if left is right else _renamed(right, rank, len(order))


def _renamed(matrix: Any, rank: NDArray[np.int32], count: int) -> Any:
    """Return the matrix with column c called rank[c], without those that have none."""
    from scipy.sparse import csr_matrix

    columns = rank[matrix.indices]
    keep = columns >= 0
    ends = np.concatenate([[0], np.cumsum(keep)])[matrix.indptr]
    shape = (matrix.shape[0], max(1, count))
    renamed = csr_matrix((matrix.data[keep], columns[keep], ends), shape=shape)
    renamed.sort_indices()
    return renamed


def _rare_part(matrix: Any, threshold: float) -> Any:
    """Return a 0/1 matrix of each row's rare features: the rest has a norm below threshold."""
    from scipy.sparse import csr_matrix

    running = np.cumsum(np.concatenate([[0.0], matrix.data.astype(np.float64) ** 2]))
    within = running[1:] - np.repeat(running[matrix.indptr[:-1]], np.diff(matrix.indptr))
    rare = within >= threshold**2 - _ROUNDING
    ends = np.concatenate([[0], np.cumsum(rare)])[matrix.indptr]
    ones = np.ones(int(rare.sum()), dtype=np.int32)
    return csr_matrix((ones, matrix.indices[rare], ends), shape=matrix.shape)


def _fold(matrix: Any) -> NDArray[np.float32]:
    """Return the norm of each row's features in each of _BUCKETS buckets, shape (N, buckets)."""
    out = np.empty((matrix.shape[0], _BUCKETS), dtype=np.float32)
    for start in range(0, len(out), _CHUNK):
        ends = matrix.indptr[start : start + _CHUNK + 1]
        part = slice(ends[0], ends[-1])
        rows = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
        place = rows * _BUCKETS + matrix.indices[part] % _BUCKETS
        size = (len(ends) - 1) * _BUCKETS
        squares = np.bincount(place, matrix.data[part] ** 2, size)
        out[start : start + _CHUNK] = squares.reshape(-1, _BUCKETS)
    return np.sqrt(out, out=out)


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
        near = np.einsum("ij,ij->i", left[a], right[b]) >= threshold - 10 * _ROUNDING
        if near.any():
            yield a[near], b[near]


def _blocks(one: Any, two: Any) -> list[tuple[int, int]]:
    """Cut the rows of `one` so that a block meets at most about _BLOCK_PAIRS candidates."""
    lengths = np.diff(two.indptr)
    met = np.concatenate([[0], np.cumsum(lengths[one.indices])])
    total = met[one.indptr[1:]]
    cuts = [0]
    while cuts[-1] < one.shape[0]:
        base = total[cuts[-1] - 1] if cuts[-1] else 0
        step = int(np.searchsorted(total, base + _BLOCK_PAIRS, side="right"))
        cuts.append(min(one.shape[0], max(step, cuts[-1] + 1)))
    return list(pairwise(cuts))
