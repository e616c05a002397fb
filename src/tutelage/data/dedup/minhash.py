"""Pairs of texts that probably share most of their letters, without comparing all pairs.

MinHash (Broder 1997) of character grams, then banding (Leskovec, Rajaraman, Ullman, Mining of
Massive Datasets, section 3.4): texts that agree on all hashes of one band are candidates. Short
texts are cut into 3-grams inside words, so that the order of the words does not count; long ones,
which have most 3-grams of their language, into 7-grams. Texts of like length are hashed together
as one dense block, which turns every minimum into a vector instruction. It does not decide what a
duplicate is: near.py compares the letters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.data.dedup.base import Pairs

_SHORT, _LONG = 3, 7  # letters of a gram
_LONG_FROM = 300  # letters from which on a text is long
_SPACE = 32
_BLOCK_GRAMS = 1 << 16  # grams hashed at once: a block stays in the processor's cache
_ALL_PAIRS = 40  # in a larger bucket each row meets its neighbours and the first row only
_NEIGHBOURS = 8  # next by key and alphabet (sorted neighbourhood: Hernández, Stolfo 1995)
_COMPACT = 8_000_000  # candidates held before repeated ones are removed
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_COMPARED = 1 << 16  # pairs whose signatures are compared at once
# Bands of this many hashes, and the share of hashes that must agree, for thresholds from on.
_PLANS = ((75.0, 25, 5, 0.36), (60.0, 32, 4, 0.20), (0.0, 40, 3, 0.10))


def candidates(
    texts: Sequence[str], threshold: float, keys: Sequence[tuple[str, ...]] | None = None
) -> Pairs:
    """Return the pairs whose letters agree to about `threshold` percent, and some that do not.

    `texts` are normalised (core/example.py); at thresholds of 75 and more fewer than 1 in 1000
    pairs with a typo, a swap of words or another case are missed. Where very many texts are
    alike, those with equal `keys` are compared first.
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    border = _LONG_FROM * threshold / 100  # whoever is near a longer text is hashed as a long one
    known = keys or [()] * len(texts)
    by = sorted(range(len(texts)), key=lambda i: (known[i], texts[i]))
    order = np.array(by, dtype=np.uint64)
    lengths = lengths[by]
    found = [
        _similar(texts, order[part], threshold, size)
        for part, size in (
            (np.flatnonzero(lengths <= _LONG_FROM), _SHORT),
            (np.flatnonzero(lengths >= border), _LONG),
        )
        if len(part) > 1
    ]
    packed = _distinct(found)
    return np.stack([packed >> _HALF, packed & _LOW], axis=1).astype(np.int64)


def _similar(
    texts: Sequence[str], order: NDArray[np.uint64], threshold: float, size: int
) -> NDArray[np.uint64]:
    """Return the candidates among the texts at the positions `order`, as i * 2^32 + j, i < j."""
    _, bands, rows, share = next(plan for plan in _PLANS if threshold >= plan[0])
    hashes = signatures([texts[i] for i in order.tolist()], bands * rows, size)
    packed = _banded(hashes, bands, rows)
    low = np.ascontiguousarray(hashes.T.astype(np.uint8))  # one byte of a hash is enough here
    del hashes
    kept = [packed[:0]]
    for start in range(0, len(packed), _COMPARED):
        some = packed[start : start + _COMPARED]
        agree = low[some >> _HALF] == low[some & _LOW]
        kept.append(some[agree.sum(axis=1) >= share * bands * rows])
    found = np.concatenate(kept)
    one, two = order[found >> _HALF], order[found & _LOW]
    both: NDArray[np.uint64] = (np.minimum(one, two) << _HALF) | np.maximum(one, two)
    return both


def signatures(
    texts: Sequence[str], count: int, size: int = _SHORT, seed: int = 1
) -> NDArray[np.uint32]:
    """Return `count` MinHash values a text, shape (count, N); equal words give equal values.

    Grams of `size` 3 lie inside words, longer ones reach over spaces.
    """
    rng = np.random.default_rng(seed)
    multiply = rng.integers(1, 1 << 32, count, dtype=np.uint32) | np.uint32(1)
    add = rng.integers(0, 1 << 32, count, dtype=np.uint32)
    out = np.empty((count, len(texts)), dtype=np.uint32)
    for index, block in _blocks(texts, size):
        hashed = np.empty_like(block)
        for k in range(count):  # multiply-add modulo 2^32: overflow is wanted
            np.multiply(block, multiply[k], out=hashed)
            np.add(hashed, add[k], out=hashed)
            out[k, index] = hashed.min(axis=0)
    return out


def _blocks(
    texts: Sequence[str], size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint32]]]:
    """Yield (positions of n texts of like length, their hashed grams, shape (most grams, n)).

    Shorter texts repeat one of their grams, which leaves every minimum as it is.
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + 2
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + max(1, _BLOCK_GRAMS // int(lengths[order[start]]))
        index = order[start:stop]
        yield index, _grams([texts[i] for i in index], size)
        start = stop


def _grams(texts: Sequence[str], size: int) -> NDArray[np.uint32]:
    """Return the hashes of the grams of each text, one column a text."""
    padded = [f" {text} ".ljust(size) for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    codes = np.where(_IN_WORDS[np.minimum(codes, 128)], codes, np.uint32(_SPACE))
    count = len(codes) - size + 1
    hashed = np.zeros(count, dtype=np.uint32)
    for offset in range(size):
        hashed = hashed * np.uint32(0x01000193) + codes[offset : offset + count]
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # MurmurHash3's finaliser
        hashed ^= hashed >> np.uint32(shift)
        hashed *= np.uint32(factor)
    hashed ^= hashed >> np.uint32(16)
    lengths = np.fromiter(map(len, padded), np.int64, len(padded))
    starts = np.cumsum(lengths) - lengths
    grams = lengths - size + 1
    place = starts + np.minimum(np.arange(int(grams.max()))[:, None], grams - 1)
    block: NDArray[np.uint32] = hashed[place]
    if size > _SHORT:
        return block
    inside = (codes[1:-1] != _SPACE)[place]  # else the middle is a space: it reaches over one
    stand_in = block[np.argmax(inside, axis=0), np.arange(len(texts))]
    np.copyto(block, np.broadcast_to(stand_in, block.shape), where=~inside)
    return block


# Which ASCII characters belong to words (128: everything else does); the rest count as spaces.
_IN_WORDS = np.array([chr(code).isalnum() for code in range(128)] + [True])


def _banded(hashes: NDArray[np.uint32], bands: int, rows: int) -> NDArray[np.uint64]:
    """Return pairs of columns that agree on a whole band, as sorted i * 2^32 + j."""
    count = hashes.shape[1]
    bits = np.uint64(max(1, (count - 1).bit_length()))
    mask = np.uint64((1 << int(bits)) - 1)
    numbers = np.arange(count, dtype=np.uint64)
    found: list[NDArray[np.uint64]] = []
    for band in range(bands):
        key = hashes[band * rows].astype(np.uint64)
        for row in range(1, rows):
            key = key * np.uint64(0x9E3779B97F4A7C15) + hashes[band * rows + row]
        key *= np.uint64(0xBF58476D1CE4E5B9)
        key ^= key >> np.uint64(31)
        key *= np.uint64(0x94D049BB133111EB)
        key &= ~mask
        key |= numbers
        key.sort()
        found += _in_buckets(key >> bits, key & mask)
        if sum(map(len, found)) > _COMPACT:
            found = [_distinct(found)]
    return _distinct(found)


def _distinct(parts: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Return the sorted distinct values (a sort takes a tenth of np.unique's hash table)."""
    values = np.concatenate([np.empty(0, dtype=np.uint64), *parts])
    values.sort()
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values


def _in_buckets(key: NDArray[np.uint64], item: NDArray[np.uint64]) -> list[NDArray[np.uint64]]:
    """Return the pairs of items with equal keys; `key` is sorted, `item` rises within a key."""
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    sizes = np.diff(np.append(starts, len(key)))
    found = []
    reach = np.repeat(np.where(sizes <= _ALL_PAIRS, sizes, _NEIGHBOURS), sizes)
    place = np.flatnonzero(reach > 1)
    for step in range(1, _ALL_PAIRS):
        place = place[(reach[place] >= step) & (place + step < len(key))]
        place = place[key[place + step] == key[place]]
        if not len(place):
            break
        found.append((item[place] << _HALF) | item[place + step])
    for start, size in zip(starts[sizes > _ALL_PAIRS], sizes[sizes > _ALL_PAIRS], strict=True):
        bucket = item[start : start + size]
        found.append((bucket[0] << _HALF) | bucket[1:])
    return found
