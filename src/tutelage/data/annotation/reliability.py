"""How reliable and how fast each annotator is, from what they and the others said.

Agreement is measured against the others' majority (without the person's own vote) and against
adjudicated items, each with Wilson's interval; Dawid and Skene's error table says what they take
for what.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from tutelage.data.annotation.consensus import Consensus, dawid_skene
from tutelage.data.annotation.votes import Vote, Voted, table
from tutelage.data.findings import Finding
from tutelage.data.quality.agreement import wilson
from tutelage.data.quality.ratings import Ratings, encode_long

LOW_AGREEMENT = 0.7  # of a person with the others, from which on down they are named
READABLE = 100.0  # characters a second: three times what fast readers do
LEAST = 10  # answers from which on something is said of a person
_MIXED_UP = 3


@dataclass(frozen=True)
class Share:
    """So many of n, as a rate with Wilson's interval; None if n is 0."""

    hits: int
    n: int
    rate: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Annotator:
    """One person's record."""

    name: str
    answers: int
    skipped: int
    unsure: int
    seconds: float | None  # median of an answer
    hurried: int  # answers given faster than the text can be read
    with_others: Share
    with_adjudicated: Share
    accuracy: float | None  # by Dawid and Skene
    mixes_up: tuple[tuple[str, str, float], ...]  # (true, said, answers), likeliest first
    drafts: int  # answers that began with a draft
    accepted: int  # of those, left as they were
    edited: float | None  # mean characters changed in the others

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return asdict(self)


def share(hits: int, n: int) -> Share:
    """Return a rate with its interval."""
    low, high = wilson(hits, n)
    return Share(hits, n, hits / n if n else None, low, high)


def ratings_of(items: Sequence[Voted], order: Sequence[str] = ()) -> Ratings:
    """Return who gave what label to which item."""
    return encode_long(
        ((item, who, label) for item, labels in table(items).items()
         for who, label in labels.items()),
        order=order,
    )  # fmt: skip


def reliability(items: Sequence[Voted], ratings: Ratings | None = None) -> list[Annotator]:
    """Return every person's record, by name; `ratings` is ratings_of(items) if it is at hand."""
    mine: dict[str, list[tuple[Voted, Vote]]] = defaultdict(list)
    for one in items:
        for vote in one.votes:
            mine[vote.annotator].append((one, vote))
    ratings = ratings_of(items) if ratings is None else ratings
    believed = (
        dawid_skene(ratings.codes, len(ratings.categories)) if len(ratings.raters) > 1 else None
    )
    return [_record(name, mine[name], ratings, believed) for name in sorted(mine)]


def _record(
    name: str, own: list[tuple[Voted, Vote]], ratings: Ratings, believed: Consensus | None
) -> Annotator:
    given = [(one, vote) for one, vote in own if not vote.skipped]
    times = [vote.seconds for _, vote in given if vote.seconds is not None]
    drafted = [vote for _, vote in given if vote.draft is not None]
    changed = [v.edit_distance for v in drafted if v.edit_distance]
    accuracy, mixes = _errors(name, ratings, believed)
    return Annotator(
        name=name,
        answers=len(given),
        skipped=len(own) - len(given),
        unsure=sum(vote.unsure for _, vote in given),
        seconds=median(times) if times else None,
        hurried=sum(_hurried(one, vote) for one, vote in given),
        with_others=_with_others(name, [one for one, _ in given]),
        with_adjudicated=_with_adjudicated(given),
        accuracy=accuracy,
        mixes_up=mixes,
        drafts=len(drafted),
        accepted=sum(vote.edit_distance == 0 for vote in drafted),
        edited=sum(changed) / len(changed) if changed else None,
    )


def _hurried(one: Voted, vote: Vote) -> bool:
    return vote.seconds is not None and len(one.item.text) > READABLE * max(vote.seconds, 1e-9)


def _with_others(name: str, items: Sequence[Voted]) -> Share:
    """Return how often a person says what most of the others say, their own vote left out."""
    hits = n = 0
    for one in items:
        others = Counter(v.value for v in one.answers if v.annotator != name).most_common(2)
        if not others or (len(others) > 1 and others[0][1] == others[1][1]):
            continue
        own = next(v for v in one.answers if v.annotator == name)
        n += 1
        hits += own.value == others[0][0]
    return share(hits, n)


def _with_adjudicated(given: Sequence[tuple[Voted, Vote]]) -> Share:
    judged = [(one.adjudicated, vote) for one, vote in given if one.adjudicated is not None]
    hits = sum(Vote("", d.label, d.answer).value == vote.value for d, vote in judged)
    return share(hits, len(judged))


def _errors(
    name: str, ratings: Ratings, believed: Consensus | None
) -> tuple[float | None, tuple[tuple[str, str, float], ...]]:
    if believed is None or name not in ratings.raters:
        return None, ()
    place = ratings.raters.index(name)
    codes = ratings.codes[place]
    mixed = np.zeros((len(ratings.categories),) * 2)
    for item in np.flatnonzero(codes >= 0):
        mixed[:, codes[item]] += believed.probabilities[item]
    np.fill_diagonal(mixed, 0.0)
    order = np.argsort(-mixed, axis=None, kind="stable")[:_MIXED_UP]
    found = []
    for flat in order:
        true, said = divmod(int(flat), mixed.shape[1])
        if mixed[true, said] >= 0.5:
            names = ratings.categories
            found.append((names[true], names[said], float(mixed[true, said])))
    return float(believed.accuracy()[place]), tuple(found)


def findings(people: Sequence[Annotator]) -> list[Finding]:
    """Return what should be looked at: people who stand apart, or answer unread."""
    found = []
    for one in people:
        others = one.with_others
        if others.n >= LEAST and others.rate is not None and others.high < LOW_AGREEMENT:
            detail = f"{one.name} agrees with the others on {others.rate:.0%} of {others.n}"
            found.append(Finding("D8-A02", detail))
        if one.answers >= LEAST and one.hurried * 2 > one.answers:
            detail = f"{one.name}: {one.hurried} of {one.answers} answers faster than one can read"
            found.append(Finding("D8-A03", detail))
        if one.drafts >= LEAST and one.accepted == one.drafts:
            detail = f"{one.name} left all {one.drafts} drafts as they were"
            found.append(Finding("D8-A04", detail))
    return found
