"""The protocol of finders of duplicates, and the form of what they find.

A finder names pairs; whether a row is kept, dropped or only shown is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tutelage.core import plugins

Pairs = NDArray[np.int64]  # shape (P, 2): positions i < j in each row, sorted, no row twice


class DuplicateFinder(Protocol):
    """Finds texts that say the same. A plug-in of `tutelage.dedup` is made without arguments."""

    def pairs(self, texts: Sequence[str]) -> Pairs:
        """Return the pairs of positions whose texts say the same.

        Of many texts that are all the same a chain is enough: no more than a few pairs a text.
        """
        ...


def load_finder(name: str) -> DuplicateFinder:
    """Return the finder `name` as its author set it up; an unknown name lists the known ones."""
    return plugins.load("dedup", name)()  # type: ignore[no-any-return]


def as_pairs(first: Sequence[int], second: Sequence[int]) -> Pairs:
    """Return pairs of positions in the protocol's form, whatever their order and repetition."""
    both = np.array([first, second], dtype=np.int64).reshape(2, -1)
    low, high = both.min(axis=0), both.max(axis=0)
    pairs: Pairs = np.unique(np.stack([low, high], axis=1)[low < high], axis=0)
    return pairs
