"""What people said of an item, where that leaves it, and which items need a decision first.

Only the newest answer of a person counts; a skipped item is no answer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from rapidfuzz.fuzz import ratio

from tutelage.core.example import normalise
from tutelage.data.annotation.items import Item

State = Literal["open", "agreed", "disputed", "unsure", "skipped", "decided"]
Accept = Literal["agreed", "majority"]


@dataclass(frozen=True)
class Vote:
    """One person's newest answer. `flags` may hold "unsure" and "skip"."""

    annotator: str
    label: str | None = None
    answer: str | None = None
    flags: tuple[str, ...] = ()
    comment: str = ""
    seconds: float | None = None
    draft: int | None = None
    edit_distance: int | None = None

    @property
    def skipped(self) -> bool:
        """Whether the person passed the item by."""
        return "skip" in self.flags

    @property
    def unsure(self) -> bool:
        """Whether the person doubts the answer."""
        return "unsure" in self.flags

    @property
    def value(self) -> str:
        """What two answers are compared by: the label, or the text apart from case and space."""
        return self.label if self.label is not None else normalise(self.answer or "")


@dataclass(frozen=True)
class Decision:
    """What an item's answer is, who says so, and how that came about."""

    label: str | None
    answer: str | None
    kind: Literal["adjudicated", "agreed", "majority"]
    by: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True)
class Voted:
    """An item with its votes. `waiting` counts answers that were asked for and are not there."""

    item: Item
    votes: tuple[Vote, ...]
    waiting: int = 0
    adjudicated: Decision | None = None

    @property
    def answers(self) -> tuple[Vote, ...]:
        """The votes that say something."""
        return tuple(vote for vote in self.votes if not vote.skipped)

    @property
    def state(self) -> State:
        """Where the item stands."""
        if self.adjudicated is not None:
            return "decided"
        answers = self.answers
        if len({vote.value for vote in answers}) > 1:
            return "disputed"
        if self.waiting:
            return "open"
        if not answers:
            return "skipped" if self.votes else "open"
        return "unsure" if all(vote.unsure for vote in answers) else "agreed"

    @property
    def entropy(self) -> float:
        """How far the answers are apart, in bits; 0 if all say the same."""
        counts = Counter(vote.value for vote in self.answers)
        total = sum(counts.values())
        return abs(-sum(c / total * math.log2(c / total) for c in counts.values()))

    @property
    def distance(self) -> float:
        """How different the answers are as texts, 0..1, averaged over pairs."""
        texts = [vote.value for vote in self.answers]
        pairs = list(combinations(texts, 2))
        return sum(1 - ratio(a, b) / 100 for a, b in pairs) / len(pairs) if pairs else 0.0


def decide(voted: Voted, accept: Accept = "agreed") -> Decision | None:
    """Return the item's answer, or None while it has none.

    An adjudication rules. Else all answers must be the same; with `accept` "majority" more than
    half of them do once nothing is awaited.
    """
    if voted.adjudicated is not None:
        return voted.adjudicated
    if voted.state == "agreed":
        first = voted.answers[0]
        people = tuple(vote.annotator for vote in voted.answers)
        return Decision(first.label, first.answer, "agreed", people)
    if accept == "majority" and voted.state == "disputed" and not voted.waiting:
        counts = Counter(vote.value for vote in voted.answers)
        value, count = counts.most_common(1)[0]
        if count * 2 > len(voted.answers):
            own = [vote for vote in voted.answers if vote.value == value]
            people = tuple(vote.annotator for vote in own)
            why = f"{count} of {len(voted.answers)} answers"
            return Decision(own[0].label, own[0].answer, "majority", people, why)
    return None


@dataclass(frozen=True)
class Dispute:
    """An item that needs a decision, and how often its two labels are mixed up elsewhere."""

    voted: Voted
    entropy: float
    pair: tuple[str, str] | None
    met: int


def disputes(items: Iterable[Voted]) -> list[Dispute]:
    """Return what needs a decision, the most disagreed first.

    After entropy (for texts: distance) comes how many doubt, then how often the same two labels
    met on other items: settling one of those settles most.
    """
    voted = list(items)
    met = confusable(voted)
    found = []
    for one in voted:
        if one.state not in ("disputed", "unsure", "skipped"):
            continue
        pair = _pair(one)
        found.append(Dispute(one, one.entropy, pair, met[pair] if pair else 0))
    return sorted(found, key=_urgency)


def _urgency(dispute: Dispute) -> tuple[float, float, int, int, str]:
    one = dispute.voted
    labelled = any(vote.label is not None for vote in one.answers)
    doubts = sum(vote.unsure for vote in one.votes)
    apart = 0.0 if labelled else -one.distance
    return (-round(dispute.entropy, 9), apart, -doubts, -dispute.met, one.item.id)


def confusable(items: Sequence[Voted]) -> Counter[tuple[str, str]]:
    """Return how often each two labels were given to one item."""
    found: Counter[tuple[str, str]] = Counter()
    for one in items:
        labels = sorted({vote.label for vote in one.answers if vote.label is not None})
        found.update(combinations(labels, 2))
    return found


def _pair(one: Voted) -> tuple[str, str] | None:
    """Return the item's two commonest labels, in order of name."""
    counts = Counter(vote.label for vote in one.answers if vote.label is not None)
    if len(counts) < 2:
        return None
    top = sorted(counts, key=lambda label: (-counts[label], label))[:2]
    return min(top), max(top)


def table(items: Iterable[Voted]) -> dict[str, Mapping[str, str]]:
    """Return each item's labels by annotator, for agreement and consensus."""
    return {
        one.item.id: {v.annotator: v.label for v in one.answers if v.label is not None}
        for one in items
    }
