"""The nearest rows of every row by cosine: exact up to 20,000 rows, in cells above.

Above that, rows are put in cells around k-means centres and each meets the rows of the nearest
cells only (an inverted file: Jégou, Douze, Schmid 2011), so a few true neighbours may be missed.
It does not know what a row is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
_EXACT_ROWS = 20_000
_BLOCK = 8_000_000  # cosines held at once
_PROBES = 12  # cells a row meets
_ROUNDS = 6  # of k-means


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows, most similar first: indices, shape (N, K), and their cosines, (N, K)."""

    rows: NDArray[np.int64]
    cosines: NDArray[np.float32]


def nearest(vectors: Vectors, count: int) -> Neighbours:
    """Return the `count` nearest other rows of every row, or as many as there are.

    `vectors` are unit rows, shape (N, D).
    """
    from threadpoolctl import threadpool_limits

    total = len(vectors)
    count = max(0, min(count, total - 1))
    rows = np.zeros((total, count), dtype=np.int64)
    cosines = np.full((total, count), -1.0, dtype=np.float32)
    if count > 0:
        with threadpool_limits(1, user_api="blas"):  # threads that wait for a core cost tenfold
            for own, others in _cells(vectors):
                rows[own], cosines[own] = _best(vectors, own, others, count)
    return Neighbours(rows, cosines)


def set_aside(found: Neighbours, aside: NDArray[np.bool_], count: int) -> Neighbours:
    """Return the first `count` neighbours once those `aside`, shape (N, K), stand last."""
    order = np.argsort(aside, axis=1, kind="stable")[:, :count]
    return Neighbours(
        np.take_along_axis(found.rows, order, 1), np.take_along_axis(found.cosines, order, 1)
    )


def _cells(vectors: Vectors) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield (rows, the rows they are compared with), so that a block holds so many cosines."""
    total = len(vectors)
    everything = np.arange(total)
    if total <= _EXACT_ROWS:
        yield from _blocks(everything, everything)
        return
    centres, cell = spherical_kmeans(vectors, round(total**0.5))
    order = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[order], np.arange(len(centres) + 1))
    near = np.argsort(-(centres @ centres.T), axis=1, kind="stable")[:, :_PROBES]
    for index in range(len(centres)):
        own = order[starts[index] : starts[index + 1]]
        others = np.concatenate([order[starts[c] : starts[c + 1]] for c in near[index]])
        yield from _blocks(own, others)


def _blocks(
    own: NDArray[np.int64], others: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    step = max(1, _BLOCK // max(1, len(others)))
    for start in range(0, len(own), step):
        yield own[start : start + step], others


def _best(
    vectors: Vectors, own: NDArray[np.int64], others: NDArray[np.int64], wanted: int
) -> tuple[NDArray[np.int64], Vectors]:
    """Return the `wanted` nearest of `others` for each of `own`, itself left out."""
    cosines = vectors[own] @ vectors[others].T  # (B, M)
    cosines[own[:, None] == others[None, :]] = -2.0
    keep = min(wanted, len(others) - 1)
    top = np.argpartition(-cosines, max(keep - 1, 0), axis=1)[:, :keep]
    values = np.take_along_axis(cosines, top, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    rows = np.zeros((len(own), wanted), dtype=np.int64)
    best = np.full((len(own), wanted), -1.0, dtype=np.float32)
    rows[:, :keep] = others[np.take_along_axis(top, order, 1)]
    best[:, :keep] = np.take_along_axis(values, order, 1)
    return rows, best


def spherical_kmeans(
    vectors: Vectors, count: int, seed: int = 7
) -> tuple[Vectors, NDArray[np.int64]]:
    """Return unit centres, shape (C, D), and the nearest centre of every row, shape (N,).

    Fitted on a sample of 64 rows a centre; an empty cell takes a random row as its centre.
    """
    rng = np.random.default_rng(seed)
    total = len(vectors)
    count = max(1, min(count, total))
    sample = vectors[rng.choice(total, min(total, 64 * count), replace=False)]
    centres = sample[rng.choice(len(sample), count, replace=False)].copy()
    for _ in range(_ROUNDS):
        cell = _nearest_centre(sample, centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, cell, sample)
        norms = np.linalg.norm(sums, axis=1)
        full = norms > 1e-6
        centres[full] = sums[full] / norms[full, None]
        centres[~full] = sample[rng.integers(len(sample), size=int((~full).sum()))]
    return centres, _nearest_centre(vectors, centres)


def _nearest_centre(vectors: Vectors, centres: Vectors) -> NDArray[np.int64]:
    step = max(1, _BLOCK // len(centres))
    parts = [
        np.argmax(vectors[start : start + step] @ centres.T, axis=1)
        for start in range(0, len(vectors), step)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
