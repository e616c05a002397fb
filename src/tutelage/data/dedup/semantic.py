"""Semantic duplicates: texts that mean much the same in other words, for a person to look at.

Similar is not the same: "my card was declined" and "my transfer was declined" are close. So
these are shown and never dropped by themselves. Vectors come from an embedder
(inference/embed.py); all pairs are compared, block by block.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.data.dedup.base import Pairs
from tutelage.inference.base import Embedder
from tutelage.inference.embed import load_embedder

NEURAL, LETTERS = 0.85, 0.80  # cosines from which a neural or the tf-idf embedder calls similar
MOST = 50  # similar texts kept for one text: the closest
_NEVER = -2.0  # below every cosine
_BLOCK = 1 << 22  # cosines held at once


class SemanticDuplicates:
    """Finds texts with similar embeddings: a list to look at, not to drop.

    `threshold` is a cosine; unset, 0.85 for an embedder with a model and 0.80 for tf-idf.
    """

    def __init__(self, threshold: float | None = None, embedder: str = "auto") -> None:
        self._threshold = threshold
        self._embedder = embedder

    def pairs(self, texts: Sequence[str]) -> Pairs:
        """Return the pairs i < j of similar texts, sorted, shape (P, 2)."""
        embedder = load_embedder(self._embedder, len(texts))
        threshold = threshold_of(embedder) if self._threshold is None else self._threshold
        return close_pairs(embedder.embed(texts), threshold)[0]


def threshold_of(embedder: Embedder) -> float:
    """Return the cosine from which on this embedder's texts are worth showing as similar."""
    return LETTERS if embedder.fingerprint is None else NEURAL


def close_pairs(
    vectors: NDArray[np.float32],
    threshold: float,
    *,
    most: int = MOST,
    on_block: Callable[[int, int], None] | None = None,
) -> tuple[Pairs, NDArray[np.float32]]:
    """Return every pair i < j at or above a cosine, shape (P, 2), and the cosines, shape (P,).

    `vectors` have unit rows, shape (N, D). Of more than `most` such j a row i keeps the closest.
    Memory grows with N, not with N squared; `on_block` gets rows done and rows in all.
    """
    count = len(vectors)
    height = max(1, _BLOCK // max(1, count))
    pairs: list[Pairs] = [np.empty((0, 2), dtype=np.int64)]
    cosines: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)]
    for start in range(0, count, height):
        block = vectors[start : start + height] @ vectors[start:].T
        block[np.tril_indices(len(block), 0, block.shape[1])] = _NEVER
        keep = min(most, block.shape[1])
        if keep < block.shape[1]:
            least = np.partition(block, -keep, axis=1)[:, -keep, None]
            block[block < least] = _NEVER
        i, j = np.nonzero(block >= threshold)
        pairs.append(np.stack([i + start, j + start], axis=1))
        cosines.append(block[i, j])
        if on_block is not None:
            on_block(min(count, start + height), count)
    return np.concatenate(pairs), np.concatenate(cosines)


def stars(count: int, pairs: Pairs) -> list[list[int]]:
    """Return clusters of two and more of `count` items, each with its centre first.

    The item with most free neighbours takes them, and so on (star clustering: Aslam, Pelekhov,
    Rus 2004), so every member is close to its centre: a chain of small steps never makes one
    cluster of what lies far apart.
    """
    near: dict[int, list[int]] = defaultdict(list)
    for i, j in pairs.tolist():
        near[i].append(j)
        near[j].append(i)
    free = set(near)
    found = []
    for centre in sorted(near, key=lambda item: (-len(near[item]), item)):
        if centre not in free:
            continue
        members = sorted(free.intersection(near[centre]))
        if members:
            found.append([centre, *members])
            free.difference_update([centre, *members])
    return found
