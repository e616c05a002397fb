"""Which of the wanted texts are asked for first: likely wrong, often asked, unlike each other.

It knows vectors and values alone, not where they come from.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from tutelage.data.linear import Vectors

MOST = 3000  # candidates that are compared with each other
_WIDE = 20  # candidates a wanted row
TOO_NEAR = 0.97  # cosine from which on two texts ask a person the same

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


def candidates(values: Floats, eligible: NDArray[np.bool_], budget: int, seed: int) -> Indices:
    """Return the texts to choose from: half the highest values, half drawn by value from the rest.

    The drawn half (Efraimidis & Spirakis 2006) lets every kind of trouble be there in proportion,
    where one kind alone fills the top.
    """
    rng = np.random.default_rng(seed)
    order = np.flatnonzero(eligible & (values > 0))
    wide = min(MOST, max(500, _WIDE * budget))
    if len(order) <= wide:
        return order
    order = rng.permutation(order)  # ties are drawn
    order = order[np.argsort(-values[order], kind="stable")]
    top, rest = order[: wide // 2], order[wide // 2 :]
    keys = np.log(rng.random(len(rest))) / values[rest]
    drawn = rest[np.argpartition(-keys, wide - len(top) - 1)[: wide - len(top)]]
    return np.sort(np.concatenate([top, drawn]))


def spread(values: Floats, vectors: Vectors, count: int) -> list[int]:
    """Return up to `count` places in the order they are wanted.

    Greedy for f(S) = sum_i v_i max_{j in S} max(0, cos(i, j))^2 + sum_{j in S} v_j: facility
    location with a modular term, monotone submodular, so within 1 - 1/e of the best (Nemhauser,
    Wolsey, Fisher 1978; lazily: Minoux 1978). A row that nearly repeats a chosen one is passed by.
    """
    if not len(values):
        return []
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        cosines: Floats = np.maximum(vectors @ vectors.T, 0)
    near = cosines >= TOO_NEAR
    cosines *= cosines
    weights = values.astype(np.float32)
    cover = np.zeros(len(values), np.float32)
    gains = weights @ cosines + weights
    heap = [(-float(gain), place) for place, gain in enumerate(gains)]
    heapq.heapify(heap)
    barred = np.zeros(len(values), bool)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        _, place = heapq.heappop(heap)
        if barred[place]:
            continue
        gain = float(weights @ np.maximum(cosines[place] - cover, 0) + weights[place])
        if heap and gain < -heap[0][0] - 1e-6:
            heapq.heappush(heap, (-gain, place))
            continue
        chosen.append(place)
        barred |= near[place]
        np.maximum(cover, cosines[place], out=cover)
    return chosen


def drawn(counts: Floats, eligible: NDArray[np.bool_], number: int, seed: int) -> Indices:
    """Return up to `number` texts drawn by how often they are asked: a sample of requests."""
    places = np.flatnonzero(eligible & (counts > 0))
    if number <= 0 or not len(places):
        return np.zeros(0, np.int64)
    rng = np.random.default_rng(seed)
    keys = np.log(rng.random(len(places))) / counts[places]
    chosen: Indices = places[np.argsort(-keys)[:number]]
    return chosen


def interleave(*parts: list[int]) -> list[int]:
    """Return all places so that each part is spread evenly over the whole, first parts first."""
    marked = [
        ((index + 0.5) / len(part), number, place)
        for number, part in enumerate(parts)
        for index, place in enumerate(part)
    ]
    return [place for _, _, place in sorted(marked)]
