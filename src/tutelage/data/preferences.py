"""Pairs of answers of which one is better, and answers that were praised or blamed.

Where they come from (files, corrections, comparisons, production) is gathered by the workflow.
Here they are checked and counted: equal answers are set aside, choices that contradict each other
are settled by the majority, and a bias to long or short answers is told. Nothing is trained.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from tutelage.core.artifact import content_hash
from tutelage.core.example import Example, Message, Origin, SplitName, normalise
from tutelage.data.annotation.items import item_id
from tutelage.data.findings import Finding

PairSource = Literal["file", "comparison", "expert edit", "production edit", "thumbs"]
SOURCES: tuple[PairSource, ...] = (
    "file", "comparison", "expert edit", "production edit", "thumbs",
)  # fmt: skip
REJECTED, DESIRABLE, NOTE = "rejected", "desirable", "preference"  # fields of an example's meta
_FAR = 1.25  # mean length of one side over that of the other, from which on it is told
_OFTEN = 0.7  # share of pairs whose better answer is the longer (or shorter) one, likewise
_FEW = 10  # pairs below which nothing is said about lengths


@dataclass(frozen=True)
class Pair:
    """Two answers to the turns in `context`, the better one first, and who said so.

    `split` is the side on which the pair may be used, once it is known.
    """

    context: tuple[Message, ...]
    chosen: str
    rejected: str
    source: PairSource
    where: str = ""
    author: str | None = None
    label: str | None = None  # of the better answer
    group: str | None = None
    split: SplitName | None = None
    votes: int = 1

    @cached_property
    def item(self) -> str:
        """The name of what is asked."""
        return item_id(self.context)


@dataclass(frozen=True)
class Judged:
    """One answer that somebody praised or blamed, with nothing to compare it with."""

    context: tuple[Message, ...]
    answer: str
    desirable: bool
    where: str = ""
    author: str | None = None
    label: str | None = None
    group: str | None = None
    split: SplitName | None = None

    @cached_property
    def item(self) -> str:
        """The name of what is asked."""
        return item_id(self.context)


@dataclass(frozen=True)
class Conflict:
    """Two answers to one input that were chosen both ways: `first` over `second`, and back."""

    text: str
    first: str
    second: str
    votes: tuple[int, int]
    where: tuple[str, ...]

    @property
    def settled(self) -> bool:
        """Whether more choices go one way than the other."""
        return self.votes[0] != self.votes[1]

    def as_dict(self) -> dict[str, Any]:
        """Return the conflict as plain data."""
        return {
            "input": self.text,
            "first": self.first,
            "second": self.second,
            "votes": list(self.votes),
            "settled": self.settled,
            "where": list(self.where),
        }


@dataclass
class Settled:
    """Pairs fit to train on, one a choice; those set aside, contradictions, and what to say."""

    pairs: list[Pair] = field(default_factory=list)
    set_aside: list[tuple[Pair, str, str]] = field(default_factory=list)  # finding's id, sentence
    conflicts: list[Conflict] = field(default_factory=list)
    repeated: int = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class LengthBias:
    """How long the better and the worse answers are, in characters (means), and how often the
    better one is the longer: what a model would learn if it learned length alone."""

    pairs: int
    chosen: float
    rejected: float
    longer: float  # share of pairs whose better answer is longer; a draw counts half

    @property
    def strong(self) -> bool:
        """Whether the lengths are so unequal that it should be looked at."""
        if self.pairs < _FEW:
            return False
        ratio = self.chosen / max(self.rejected, 1e-9)
        return not 1 / _FAR <= ratio <= _FAR or not 1 - _OFTEN <= self.longer <= _OFTEN

    def sentence(self) -> str:
        """Return the report in one line."""
        return (
            f"better answers have {self.chosen:,.0f} characters on average, worse ones "
            f"{self.rejected:,.0f}; the better one is the longer in {self.longer:.0%} of the pairs"
        )

    def warning(self) -> str | None:
        """Return what to mind, or None."""
        if not self.strong:
            return None
        kind = "long" if self.chosen >= self.rejected else "short"
        return f"the model may learn to be {kind} instead of good: {self.sentence()}"

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "pairs": self.pairs,
            "chosen_characters": round(self.chosen, 1),
            "rejected_characters": round(self.rejected, 1),
            "chosen_longer": round(self.longer, 4),
            "strong": self.strong,
        }


def settle(pairs: Iterable[Pair]) -> Settled:
    """Return each choice once, without pairs that say nothing and without contradictions.

    Two answers chosen both ways: the way of more choices counts, a draw is left out.
    """
    found = Settled()
    groups: dict[tuple[str, frozenset[str]], list[Pair]] = defaultdict(list)
    for pair in pairs:
        problem = problem_of(pair)
        if problem is None:
            groups[pair.item, frozenset((same(pair.chosen), same(pair.rejected)))].append(pair)
            continue
        key, detail = problem
        found.set_aside.append((pair, key, detail))
        found.findings.append(Finding(key, detail, pair.where))
    for group in groups.values():
        _settle_group(group, found)
    return found


def problem_of(pair: Pair) -> tuple[str, str] | None:
    """Return the finding's id and a sentence if a pair says nothing, else None."""
    if not pair.chosen.strip() or not pair.rejected.strip():
        which = "better" if not pair.chosen.strip() else "worse"
        return "D8-P02", f"the {which} answer is empty"
    if same(pair.chosen) == same(pair.rejected):
        return "D8-P01", f"both answers are {pair.chosen.strip()[:60]!r}, so neither is better"
    return None


def same(text: str) -> str:
    """Return a text as two answers are compared: NFC, single spaces; case counts."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _settle_group(group: Sequence[Pair], found: Settled) -> None:
    """Add the choice between two answers that `group` makes, and what is to be said of it."""
    ways: dict[str, list[Pair]] = defaultdict(list)
    for pair in group:
        ways[same(pair.chosen)].append(pair)
    order = sorted(ways.values(), key=lambda way: -_votes(way))
    winner, votes = order[0], [_votes(way) for way in order]
    if len(order) == 1:
        found.repeated += len(winner) - 1
        found.pairs.append(replace(winner[0], votes=votes[0]))
        return
    first = winner[0]
    places = tuple(pair.where for pair in group if pair.where)
    conflict = Conflict(
        input_text(first.context), first.chosen, first.rejected, (votes[0], votes[1]), places
    )
    found.conflicts.append(conflict)
    detail = (
        f"{first.chosen[:40]!r} over {first.rejected[:40]!r} {votes[0]} times, "
        f"the other way {votes[1]} times"
    )
    found.findings.append(Finding("D8-P03", detail, first.where))
    if conflict.settled:
        found.repeated += len(winner) - 1
        found.pairs.append(replace(first, votes=votes[0]))


def _votes(way: Sequence[Pair]) -> int:
    return sum(pair.votes for pair in way)


def length_bias(pairs: Sequence[Pair]) -> LengthBias:
    """Return how the lengths of better and worse answers compare."""
    count = len(pairs)
    if not count:
        return LengthBias(0, 0.0, 0.0, 0.5)
    gaps = [len(pair.chosen) - len(pair.rejected) for pair in pairs]
    return LengthBias(
        count,
        sum(len(pair.chosen) for pair in pairs) / count,
        sum(len(pair.rejected) for pair in pairs) / count,
        sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps) / count,
    )


def pairs_of_judged(judged: Iterable[Judged]) -> list[Pair]:
    """Return a pair for each praised and blamed answer to one input."""
    by_item: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        by_item[one.item].append(one)
    found = []
    for group in by_item.values():
        bad = {same(one.answer): one for one in group if not one.desirable}
        good = {same(one.answer): one for one in group if one.desirable}
        for answer, one in good.items():
            for other in (worse for text, worse in bad.items() if text != answer):
                found.append(
                    Pair(
                        one.context, one.answer, other.answer, "thumbs", one.where, one.author,
                        one.label, one.group, one.split,
                    )
                )  # fmt: skip
    return found


def input_text(context: Sequence[Message]) -> str:
    """Return what the user side says."""
    return "\n".join(turn.content for turn in context if turn.role != "system")


def asked(context: Sequence[Message]) -> str:
    """Return the user side as twins are looked for."""
    return normalise(input_text(context))


def pair_example(pair: Pair) -> Example:
    """Return a pair as a row: the better answer is its answer, the worse one is kept in meta."""
    note = {"source": pair.source, "votes": pair.votes}
    return _example(pair, pair.chosen, {REJECTED: pair.rejected, NOTE: note})


def both_examples(pair: Pair) -> list[Example]:
    """Return a pair as two judged rows, the desirable one first."""
    note = {"source": pair.source, "votes": pair.votes}
    return [
        _example(pair, pair.chosen, {DESIRABLE: True, NOTE: note}),
        _example(replace(pair, label=None), pair.rejected, {DESIRABLE: False, NOTE: note}),
    ]


def judged_example(one: Judged) -> Example:
    """Return a judged answer as a row; meta says whether it was desirable."""
    return _example(one, one.answer, {DESIRABLE: one.desirable, NOTE: {"source": "thumbs"}})


def _example(of: Pair | Judged, answer: str, meta: dict[str, Any]) -> Example:
    production = isinstance(of, Judged) or of.source in ("production edit", "thumbs")
    return Example(
        messages=(*of.context, Message(role="assistant", content=answer)),
        label=of.label,
        group=of.group,
        meta=meta,
        origin=Origin(
            kind="production" if production else "imported", source=of.where, author=of.author
        ),
    )


def pair_id(example: Example) -> str:
    """Return the name of a row of preferences: 24 hex digits of both answers, or answer and mark.

    Pairs with one better and several worse answers have one example id, but a name each.
    """
    other = example.meta.get(REJECTED, example.meta.get(DESIRABLE))
    return content_hash([example.id, other])[:24]


def count_by_source(pairs: Iterable[Pair]) -> dict[str, int]:
    """Return how many pairs each source gave, in the order of SOURCES."""
    counts = Counter(pair.source for pair in pairs)
    return {name: counts[name] for name in SOURCES if counts[name]}
