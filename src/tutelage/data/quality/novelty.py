"""How unusual a text's letters are among the other texts: the mean rarity of its 5-grams.

No model and no vocabulary: noise, another language and another topic all have letter sequences
that no other row has. It does not decide what is too unusual.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.core.example import normalise

_GRAM = 5  # characters
_BITS = 22  # of a 5-gram's hash: 4 million counters
_WORD = 20  # letters of a word that are shown
_CHUNK = 2_000_000  # characters hashed at once


@dataclass(frozen=True)
class Novelty:
    """A text's rarity (mean of -ln share, nats) and share of 5-grams in no other text; (N,)."""

    rarity: NDArray[np.float64]
    unseen: NDArray[np.float64]


def novelty(texts: Sequence[str], twins: NDArray[np.int64] | None = None) -> Novelty:
    """Return how rare each text's 5-grams are among the others, texts of one cluster left out.

    The rarity of a 5-gram is -ln(d / N), d the number of other clusters that have it (1/2 if
    none has), N the number of clusters; `twins` holds the cluster's number a text, shape (N,).
    """
    total = len(texts)
    own = np.arange(total) if twins is None else twins
    names, cluster = np.unique(own, return_inverse=True)
    spread = np.zeros(1 << _BITS, dtype=np.int32)  # clusters that have a 5-gram
    order = np.argsort(cluster, kind="stable")  # a cluster's texts lie side by side
    parts = _parts(texts, order, cluster)
    for rows, owners, grams in _grams(texts, order, parts):
        pairs = _distinct((cluster[order[rows]][owners].astype(np.int64) << _BITS) | grams)
        spread += np.bincount(pairs & ((1 << _BITS) - 1), minlength=1 << _BITS).astype(np.int32)
    rarity, unseen = np.zeros(total), np.zeros(total)
    for rows, owners, grams in _grams(texts, order, parts):
        others = spread[grams] - 1
        surprise = -np.log(np.maximum(others, 0.5) / max(len(names), 1))
        count = np.maximum(np.bincount(owners, minlength=len(rows)), 1)
        places = order[rows]
        rarity[places] = np.bincount(owners, surprise, minlength=len(rows)) / count
        unseen[places] = np.bincount(owners, others <= 0, minlength=len(rows)) / count
    return Novelty(rarity, unseen)


def _parts(
    texts: Sequence[str], order: NDArray[np.int64], cluster: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Cut the places in `order` so that a part has so many characters, between two clusters."""
    total = len(order)
    until = np.cumsum([len(texts[index]) + _GRAM for index in order])
    edges = np.append(np.flatnonzero(np.diff(cluster[order])) + 1, total)
    parts: list[tuple[int, int]] = []
    start = 0
    while start < total:
        limit = (until[start - 1] if start else 0) + _CHUNK
        stop = max(start + 1, int(np.searchsorted(until, limit, side="right")))
        before = edges[(edges > start) & (edges <= stop)]
        parts.append((start, int(before[-1]) if len(before) else stop))
        start = parts[-1][1]
    return parts


def _grams(
    texts: Sequence[str], order: NDArray[np.int64], parts: Sequence[tuple[int, int]]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield (places in `order`, the place each 5-gram is of, its hash); a text's are distinct."""
    for start, stop in parts:
        places = np.arange(start, stop)
        padded = [f" {normalise(texts[order[i]])} ".ljust(_GRAM) for i in places]
        lengths = np.array([len(text) for text in padded])
        joined = "".join(padded).encode("utf-32-le", "surrogatepass")
        codes = np.frombuffer(joined, dtype=np.uint32)
        rolling = np.zeros(len(codes) - _GRAM + 1, dtype=np.uint64)
        for offset in range(_GRAM):
            rolling = rolling * np.uint64(1_000_003) + codes[offset : offset + len(rolling)]
        rolling *= np.uint64(0x9E3779B97F4A7C15)
        hashed = (rolling >> np.uint64(64 - _BITS)).astype(np.int64)
        owners = np.repeat(np.arange(len(places)), lengths)
        inside = owners[: len(hashed)] == owners[_GRAM - 1 :]  # not over a text's end
        pairs = _distinct((owners[: len(hashed)][inside] << _BITS) | hashed[inside])
        yield places, pairs >> _BITS, pairs & ((1 << _BITS) - 1)


def _distinct(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the different numbers in order; sorting is faster here than numpy's hashing."""
    numbers = np.sort(numbers)
    first = np.ones(len(numbers), dtype=bool)
    first[1:] = numbers[1:] != numbers[:-1]
    return numbers[first]


def rare_words(texts: Sequence[str], wanted: Sequence[int], shown: int = 3) -> dict[int, list[str]]:
    """Return, for each of the wanted texts, up to `shown` of its words that no other text has."""
    from collections import Counter

    spread: Counter[str] = Counter()
    for text in texts:
        spread.update(set(_words(text)))
    return {
        index: [
            word if len(word) <= _WORD else word[: _WORD - 1] + "…"
            for word in dict.fromkeys(_words(texts[index]))
            if spread[word] == 1
        ][:shown]
        for index in wanted
    }


def _words(text: str) -> list[str]:
    import re

    return re.findall(r"[^\W\d_]{2,}", text.lower())
