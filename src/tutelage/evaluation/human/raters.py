"""The people who judge: how far they agree, whom the left side draws, whether they tire.

Sides are drawn by lot, so without a leaning the left answer wins as often as the right one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tutelage.core.errors import DataError
from tutelage.data.quality.agreement import Agreement, agreement
from tutelage.data.quality.ratings import Level, encode_long
from tutelage.evaluation.human.votes import NOBODY, Mark, Vote
from tutelage.evaluation.significance import Interval, holm, mcnemar, wilson

ALPHA = 0.05  # below which a rater's leaning to a side is said aloud, corrected after Holm


@dataclass(frozen=True)
class RaterReport:
    """One rater. `left_share` is how often the left answer won, ties left out; p is two-sided.

    `p` is mid-p of the sign test, corrected for all raters (Holm). `with_others` is the share
    of judgements of others, on the same rows, that were the same. Seconds are medians; `early`
    and `late` are those of the first and the second half.
    """

    rater: str
    judgements: int
    ties: int
    left: int
    right: int
    left_share: float | None
    p: float
    leans: bool
    with_others: float | None
    seconds: float | None
    early: float | None
    late: float | None


@dataclass(frozen=True)
class Position:
    """How often the left answer won over all raters, ties left out, with its interval."""

    left: Interval
    p: float


def rater_reports(votes: Sequence[Vote]) -> list[RaterReport]:
    """Return what can be said of each rater, by name."""
    asked = [vote for vote in votes if vote.rater != NOBODY]
    by_rater: dict[str, list[Vote]] = defaultdict(list)
    for vote in asked:
        by_rater[vote.rater].append(vote)
    names = sorted(by_rater)
    sides = {name: _sides(by_rater[name]) for name in names}
    corrected = holm([mcnemar(*sides[name]) for name in names])
    same = _with_others(asked)
    found = []
    for name, p in zip(names, corrected, strict=True):
        own = sorted(by_rater[name], key=lambda vote: vote.place)
        left, right = sides[name]
        half = len(own) // 2
        found.append(
            RaterReport(
                rater=name,
                judgements=len(own),
                ties=sum(vote.value == 0.5 for vote in own),
                left=left,
                right=right,
                left_share=left / (left + right) if left + right else None,
                p=p,
                leans=p < ALPHA,
                with_others=same.get(name),
                seconds=_middle([vote.seconds for vote in own]),
                early=_middle([vote.seconds for vote in own[:half]]),
                late=_middle([vote.seconds for vote in own[half:]]),
            )
        )
    return found


def position(votes: Sequence[Vote], confidence: float = 0.95) -> Position:
    """Return how often the left answer won, over all raters."""
    left, right = _sides([vote for vote in votes if vote.rater != NOBODY])
    return Position(wilson(left, left + right, confidence), mcnemar(left, right))


def vote_agreement(votes: Sequence[Vote], *, seed: int = 7) -> Agreement | None:
    """Return how far raters agree on who is better; None where no row has two raters."""
    return _agreement(
        [
            (f"{vote.item} {vote.first} {vote.second}", vote.rater, _WORDS[vote.value])
            for vote in votes
            if vote.rater != NOBODY
        ],
        (),
        seed,
    )


def mark_agreement(
    marks: Sequence[Mark], criterion: str, *, levels: int, seed: int = 7
) -> Agreement | None:
    """Return how far raters agree on a criterion's levels, an ordinal scale from three levels."""
    order = [str(level) for level in range(levels)]
    answers = [
        (f"{mark.item} {mark.candidate}", mark.rater,
         str(round(mark.values[criterion] * (levels - 1))))
        for mark in marks
        if criterion in mark.values
    ]  # fmt: skip
    return _agreement(answers, order, seed)


_WORDS = {1.0: "first", 0.5: "tie", 0.0: "second"}


def _agreement(
    answers: list[tuple[str, str, str]], order: Sequence[str], seed: int
) -> Agreement | None:
    if not answers:
        return None
    try:
        level: Level = "ordinal" if len(order) > 2 else "nominal"
        return agreement(encode_long(answers, order=order), level=level, seed=seed)
    except DataError:  # no row has answers of two people
        return None


def _sides(votes: Sequence[Vote]) -> tuple[int, int]:
    """Return how often the left and the right answer won."""
    won = [vote.left == (vote.first if vote.value == 1 else vote.second)
           for vote in votes if vote.value != 0.5 and vote.left is not None]  # fmt: skip
    return sum(won), len(won) - sum(won)


def _with_others(votes: Sequence[Vote]) -> dict[str, float]:
    """Return each rater's share of equal judgements, over all pairs with another on a row."""
    on_row: dict[tuple[str, str, str], list[Vote]] = defaultdict(list)
    for vote in votes:
        on_row[vote.item, vote.first, vote.second].append(vote)
    equal: dict[str, list[bool]] = defaultdict(list)
    for group in on_row.values():
        for one in group:
            for other in group:
                if one.rater != other.rater:
                    equal[one.rater].append(one.value == other.value)
    return {name: sum(found) / len(found) for name, found in equal.items()}


def _middle(seconds: Sequence[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return median(known) if known else None
