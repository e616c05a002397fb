"""The best n train rows: good ones that together cover what the rows are about.

Within a label (or a cell of like rows, without labels) rows are taken greedily for

    f(S) = Σ_i q_i · max_{j in S} max(0, cos(i, j)) + Σ_{j in S} q_j

q the quality, so that bad rows are neither taken nor need covering (facility location plus a
modular term: monotone submodular, so greedy is within 1 - 1/e of the best; Nemhauser, Wolsey,
Fisher 1978; Wei, Iyer, Bilmes 2015). Every label keeps its share. Validation and test rows are
never given to this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.core.example import Example
from tutelage.data.findings import reason
from tutelage.data.pipeline import Dropped
from tutelage.data.quality.neighbours import spherical_kmeans
from tutelage.data.quality.rank import Ranking
from tutelage.data.quality.space import Space

LEFT = "D12-S01"
_A_LABEL = 10  # rows that every label keeps, where it has them and n allows
_SOUND = 0.5  # least score of a row that a label may claim
_GROUP = 400  # rows that are compared with each other, at most about


@dataclass(frozen=True)
class Selection:
    """The positions of the kept rows, in the rows' order, and what was left out and why."""

    kept: list[int]
    dropped: list[Dropped]


def select_best(
    rows: Sequence[Example], count: int, ranking: Ranking, space: Space, *, seed: int = 7
) -> Selection:
    """Return the `count` best rows of `rows` and the others with reason and cause.

    `ranking` and `space` are of the same rows, in order. With `count` or fewer rows all stay.
    """
    if len(rows) <= count:
        return Selection(list(range(len(rows))), [])
    from threadpoolctl import threadpool_limits

    groups = _groups(rows, space, seed)
    quotas = _quotas([ranking.scores[group] for group in groups], count)
    kept: list[int] = []
    dropped: list[Dropped] = []
    with threadpool_limits(1, user_api="blas"):
        for group, quota in zip(groups, quotas, strict=True):
            cosines = np.maximum(space.vectors[group] @ space.vectors[group].T, 0.0)
            taken = _greedy(cosines, ranking.scores[group], quota)
            kept += group[taken].tolist()
            dropped += _left(rows, group, taken, cosines, ranking)
    return Selection(sorted(kept), dropped)


def _groups(rows: Sequence[Example], space: Space, seed: int) -> list[NDArray[np.int64]]:
    """Return the positions of the rows by label, large ones cut into cells of like rows."""
    by_label: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_label.setdefault(row.label or "", []).append(index)
    groups: list[NDArray[np.int64]] = []
    for label in sorted(by_label):
        members = np.array(by_label[label])
        cells = -(-len(members) // _GROUP)
        if cells == 1:
            groups.append(members)
            continue
        cell = spherical_kmeans(space.vectors[members], cells, seed)[1]
        for number in np.unique(cell):
            part = members[cell == number]
            groups += np.array_split(part, -(-len(part) // (2 * _GROUP)))
    return groups


def _quotas(scores: Sequence[NDArray[np.float64]], count: int) -> list[int]:
    """Return how many rows each group keeps, `count` together.

    A group's share is that of its quality, and at least 10 sound rows where it has them.
    """
    size = np.array([len(group) for group in scores], dtype=np.float64)
    mass = np.array([group.sum() for group in scores])
    sound = np.array([(group >= _SOUND).sum() for group in scores])
    least = np.minimum(sound, min(_A_LABEL, count // len(scores))).astype(np.float64)
    low, high = 0.0, float((size / mass).max())
    for _ in range(60):  # the share at which the quotas sum to n
        share = (low + high) / 2
        if np.clip(share * mass, least, size).sum() < count:
            low = share
        else:
            high = share
    exact = np.clip(high * mass, least, size)
    quota = np.floor(exact + 1e-9).astype(np.int64)
    room = np.argsort(-(exact - quota), kind="stable")
    missing = count - int(quota.sum())
    for group in np.resize(room, max(missing, 0) + len(scores)):
        if missing <= 0:
            break
        if quota[group] < size[group]:
            quota[group] += 1
            missing -= 1
    return [int(number) for number in quota]


def _greedy(cosines: NDArray[np.float32], quality: NDArray[np.float64], quota: int) -> list[int]:
    """Return the places that maximise f, in the order they were taken."""
    weight = quality.astype(np.float32)
    cover = np.zeros(len(weight), dtype=np.float32)
    free = np.ones(len(weight), dtype=bool)
    taken: list[int] = []
    for _ in range(quota):
        gain = weight @ np.maximum(cosines - cover[:, None], 0.0) + weight
        best = int(np.where(free, gain, -1.0).argmax())
        free[best] = False
        taken.append(best)
        np.maximum(cover, cosines[:, best], out=cover)
    return taken


def _left(
    rows: Sequence[Example],
    group: NDArray[np.int64],
    taken: list[int],
    cosines: NDArray[np.float32],
    ranking: Ranking,
) -> list[Dropped]:
    """Return the rows of a group that were not taken, each with the kept row nearest to it."""
    out: list[Dropped] = []
    inside = set(taken)
    for place, index in enumerate(group.tolist()):
        if place in inside:
            continue
        quality, why = float(ranking.scores[index]), ranking.weakest(index)
        cause, near = None, "no row of its label was kept"
        if taken:
            best = taken[int(cosines[place, taken].argmax())]
            cause = rows[int(group[best])].id
            near = f"nearest kept row: cosine {cosines[place, best]:.2f}"
        text = f"quality {quality:.2f}, {why}; {near}"
        out.append(Dropped(rows[index], LEFT, reason(LEFT, text), cause))
    return out
