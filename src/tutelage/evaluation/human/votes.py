"""What people said, as the statistics read it: votes between two answers, marks by a rubric."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

NOBODY = ""  # rater of a tie between two equal texts: nobody was asked


@dataclass(frozen=True)
class Vote:
    """One judgement between two candidates' answers to one row.

    `value` is 1 where the first is better, 0 where the second is, 0.5 for a tie. `left` names
    the candidate that was shown on the left. Equal texts tie without a rater.
    """

    item: str
    cluster: str
    rater: str
    first: str
    second: str
    value: float
    left: str | None = None
    seconds: float | None = None
    place: int = 0  # how many the rater had judged before


@dataclass(frozen=True)
class Mark:
    """One person's marks for one answer: criterion → 0..1, the lowest and the highest level."""

    item: str
    cluster: str
    rater: str
    candidate: str
    values: Mapping[str, float]
    seconds: float | None = None
    place: int = 0


@dataclass(frozen=True)
class Rows:
    """Values by row, each the mean of what people said of it, with the row's cluster."""

    values: tuple[float, ...] = ()
    clusters: tuple[str, ...] = ()
    items: tuple[str, ...] = field(default=())


def between(votes: Iterable[Vote], first: str, second: str) -> list[Vote]:
    """Return the votes between two candidates, all turned so that `first` is the first."""
    found = []
    for vote in votes:
        if (vote.first, vote.second) == (first, second):
            found.append(vote)
        elif (vote.second, vote.first) == (first, second):
            found.append(
                Vote(
                    vote.item, vote.cluster, vote.rater, first, second, 1 - vote.value,
                    vote.left, vote.seconds, vote.place,
                )
            )  # fmt: skip
    return found


def by_row(values: Iterable[tuple[str, str, float]]) -> Rows:
    """Return the mean of each row of (item, cluster, value), in the order rows first appear."""
    given: dict[str, list[float]] = defaultdict(list)
    clusters: dict[str, str] = {}
    for item, cluster, value in values:
        given[item].append(value)
        clusters[item] = cluster
    return Rows(
        tuple(sum(v) / len(v) for v in given.values()),
        tuple(clusters[item] for item in given),
        tuple(given),
    )


def pairs_of(candidates: Sequence[str]) -> list[tuple[str, str]]:
    """Return every two candidates, each pair once, in the order given."""
    return [(a, b) for i, a in enumerate(candidates) for b in candidates[i + 1 :]]
