"""Which rows people are shown, on which side each answer stands, and in which order.

Everything is drawn by a seed or a keyed hash, so a study can be made again exactly; none of it
knows which candidate is hoped to win.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Sampling = Literal["all", "random", "stratified", "differ"]
SAMPLINGS: tuple[Sampling, ...] = ("differ", "all", "random", "stratified")


@dataclass(frozen=True)
class Answered:
    """One row with the text of each candidate. `stratum` is its class, or empty."""

    item: str
    cluster: str
    stratum: str
    texts: Mapping[str, str]

    def differs(self, candidates: Sequence[str]) -> bool:
        """Return whether two of the candidates wrote different texts."""
        return len({self.texts[name].strip() for name in candidates}) > 1


def draw(
    rows: Sequence[Answered],
    candidates: Sequence[str],
    how: Sampling = "differ",
    count: int | None = None,
    *,
    seed: int = 7,
) -> list[Answered]:
    """Return the rows of a study, in a shuffled order.

    `differ` leaves out rows where all candidates wrote the same text. `stratified` takes classes
    in proportion, at least one row of each while `count` reaches. Without `count` all are taken.
    """
    pool = [row for row in rows if how != "differ" or row.differs(candidates)]
    pool.sort(key=lambda row: row.item)
    rng = random.Random(seed)
    rng.shuffle(pool)
    if count is None or count >= len(pool):
        return pool
    return _stratified(pool, count) if how == "stratified" else pool[:count]


def _stratified(pool: Sequence[Answered], count: int) -> list[Answered]:
    """Share `count` out over classes by largest remainder, one row each first."""
    groups: dict[str, list[Answered]] = defaultdict(list)
    for row in pool:
        groups[row.stratum].append(row)
    names = sorted(groups, key=lambda name: (-len(groups[name]), name))
    given = {name: 1 if place < count else 0 for place, name in enumerate(names)}
    exact = {name: count * len(groups[name]) / len(pool) for name in names}
    while sum(given.values()) < count:
        open_ones = [name for name in names if given[name] < len(groups[name])]
        given[max(open_ones, key=lambda name: exact[name] - given[name])] += 1
    taken = {row.item for name in names for row in groups[name][: given[name]]}
    return [row for row in pool if row.item in taken]


def left_is_first(secret: str, assignment: str) -> bool:
    """Return whether the first candidate stands on the left: one bit of HMAC-SHA256."""
    digest = hmac.new(secret.encode(), assignment.encode(), hashlib.sha256).digest()
    return digest[0] & 1 == 0


def row_name(secret: str, assignment: str, rater: str) -> str:
    """Return what a sheet calls a row: the assignment, and six digits that bind it to its rater.

    So a sheet that comes back late is never read as another person's.
    """
    text = f"{assignment} {rater}".encode()
    return assignment + hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()[:6]


def rater_order(tasks: Sequence[int], rater: str, seed: int) -> list[int]:
    """Return the tasks in a rater's own order, so that tiredness does not fall on the same rows."""
    order = sorted(tasks)
    random.Random(f"{seed}:{rater}").shuffle(order)
    return order
