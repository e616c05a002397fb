"""Rows as points: what outliers, label errors and selection all look at, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.core.example import Example
from tutelage.data.quality.neighbours import Neighbours, nearest, set_aside

NEIGHBOURS = 30  # rows looked at around a row, at most
_SPARE = 15  # more of them, to stand in for twins


@dataclass(frozen=True)
class Space:
    """Texts with their unit vectors, shape (N, D), their near-duplicate clusters and neighbours.

    `fitted`: the vectors were made from these texts alone (tf-idf), so that a stranger's words
    are not in them.
    """

    texts: Sequence[str]
    vectors: NDArray[np.float32]
    fitted: bool
    twins: NDArray[np.int64]  # the number of each text's cluster, shape (N,)
    neighbours: Neighbours  # twins included

    @property
    def apart(self) -> Neighbours:
        """The nearest rows of other clusters: twins do not vouch for each other."""
        twin = self.twins[self.neighbours.rows] == self.twins[:, None]
        return set_aside(self.neighbours, twin, self.reach)

    @property
    def reach(self) -> int:
        """How many neighbours speak about a row: a twentieth of all rows, 3 to 30."""
        return min(max(3, min(NEIGHBOURS, len(self.texts) // 20)), max(len(self.texts) - 1, 0))


def make_space(
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    *,
    fitted: bool,
    clusters: Sequence[str] | None = None,
) -> Space:
    """Return the rows as points; `clusters` names the near-duplicate cluster of each text."""
    twins = np.arange(len(texts))
    if clusters is not None:
        twins = np.unique(np.array(clusters, dtype=str), return_inverse=True)[1].astype(np.int64)
    return Space(texts, vectors, fitted, twins, nearest(vectors, NEIGHBOURS + _SPARE))


def text_of(row: Example) -> str:
    """Return what a row is judged by: what is asked, or the text itself if nothing is."""
    return row.input_text.strip() or row.answer or ""


def clusters_of(rows: Sequence[Example], clusters: Mapping[str, str]) -> list[str]:
    """Return the name of each row's cluster; a row that is in none is its own."""
    return [clusters.get(row.id, row.id) for row in rows]
