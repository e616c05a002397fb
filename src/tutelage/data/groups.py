"""Groups of rows by k-means on their vectors, for choosing rows that differ from each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.data.linear import Vectors

TOO_NEAR = 0.97  # cosine from which on two rows ask the expert the same
_GROUPS = 500  # at most: more would hold a handful of rows each (as TypiClust does)
_ROUNDS = 30  # of k-means
_NEIGHBOURS = 20  # whose mean distance is the typicality
_COMPARED = 2000  # rows of a group that typicality is measured against

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Rows of the pool that lie together, and how many labelled rows lie among them."""

    members: Indices
    labelled: int


def covered_groups(
    pool: Vectors, labelled: Vectors, wanted: int, rng: np.random.Generator
) -> list[Group]:
    """Return k-means groups of pool and labelled rows: those with fewest labels, largest first.

    There are as many groups as labelled and wanted rows together, 500 at most.
    """
    both = np.concatenate([labelled, pool])
    count = min(len(labelled) + wanted, _GROUPS, len(both))
    names = _kmeans(both, count, rng)[0]
    inside = np.bincount(names[: len(labelled)], minlength=count)
    order = np.argsort(names[len(labelled) :], kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(names[len(labelled) :], minlength=count))[:-1])
    groups = [Group(part, int(inside[k])) for k, part in enumerate(parts) if len(part)]
    return sorted(groups, key=lambda group: (group.labelled, -len(group.members)))


def weighted_groups(
    vectors: Vectors, weights: NDArray[np.float64], wanted: int, rng: np.random.Generator
) -> list[Indices]:
    """Return up to `wanted` groups of rows, each ordered from its centre outwards."""
    count = min(wanted, len(vectors))
    names, centres = _kmeans(vectors, count, rng, weights)
    distance = ((vectors - centres[names]) ** 2).sum(axis=1)
    order = np.lexsort((distance, names))
    parts = np.split(order, np.cumsum(np.bincount(names, minlength=count))[:-1])
    return [part for part in parts if len(part)]


def typical(vectors: Vectors, members: Indices) -> Indices:
    """Return the members, most typical first: by the inverse mean distance to their neighbours.

    Typicality is that of TypiClust (Hacohen et al. 2022, equation 4), inside the group.
    """
    if len(members) < 3:
        return members
    step = max(1, len(members) // _COMPARED)
    cosines = vectors[members] @ vectors[members[::step]].T
    near = min(_NEIGHBOURS + 1, cosines.shape[1])  # one of them is the row itself
    best = -np.partition(-cosines, near - 1, axis=1)[:, :near]
    distance = np.sqrt(np.maximum(2.0 - 2.0 * best, 0.0)).sum(axis=1)
    return members[np.argsort(distance, kind="stable")]


def _kmeans(
    vectors: Vectors,
    count: int,
    rng: np.random.Generator,
    weights: NDArray[np.float64] | None = None,
) -> tuple[Indices, Vectors]:
    """Return each row's group and the centres, shapes (N,) and (count, D)."""
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    if count >= len(vectors):
        return np.arange(len(vectors)), vectors
    model = KMeans(count, n_init=1, max_iter=_ROUNDS, random_state=int(rng.integers(2**31)))
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than groups
        model.fit(vectors, sample_weight=weights)
    return model.labels_.astype(np.int64), model.cluster_centers_
