"""Answers held against each other: both orders always, and an answer that wins in one only, ties.

A judge that follows the order contradicts itself when it is turned round, so what it prefers by
place alone comes out as a tie, and is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core.example import Example
from tutelage.evaluation.judges.asker import Judge, Verdict, Verdicts
from tutelage.evaluation.judges.fence import suspicion
from tutelage.evaluation.judges.marks import SOURCE, SUSPECTED
from tutelage.evaluation.judges.questions import Question, pairwise
from tutelage.evaluation.judges.rubric import Rubric
from tutelage.evaluation.scorers.base import Score

VALUES = {"ours": 1.0, "tie": 0.5, "theirs": 0.0}
SIDE = "suspected_side"  # whose answer it is: ours or theirs
_TURNED = {"first": "theirs", "second": "ours", "tie": "tie"}
_STRAIGHT = {"first": "ours", "second": "theirs", "tie": "tie"}
Given = Mapping[str, str]  # example id → answer


@dataclass(frozen=True)
class Duel:
    """One judge's comparison of ours with theirs: what it said in both orders.

    `better` is ours, theirs or tie; None if an order has no verdict. `conflict`: it preferred the
    same place both times.
    """

    straight: Verdict
    turned: Verdict
    same: bool = False

    @property
    def better(self) -> str | None:
        if self.same:
            return "tie"
        if self.straight.outcome is None or self.turned.outcome is None:
            return None
        one, two = _STRAIGHT[self.straight.outcome], _TURNED[self.turned.outcome]
        return one if one == two else "tie"

    @property
    def conflict(self) -> bool:
        return (
            self.straight.outcome in ("first", "second")
            and self.straight.outcome == self.turned.outcome
        )


def questions(
    rubric: Rubric, rows: Sequence[Example], ours: Given, others: Mapping[str, Given]
) -> list[Question]:
    """Return both orders of every pair, row by row; equal answers need no question."""
    return [
        question
        for row in rows
        for theirs in others.values()
        if row.id in ours and row.id in theirs and not _same(ours[row.id], theirs[row.id])
        for question in _both(rubric, row, ours[row.id], theirs[row.id])
    ]


def scores(
    rubric: Rubric,
    rows: Sequence[Example],
    pair: tuple[Given, Given],
    verdicts: Verdicts,
    judges: Sequence[Judge],
) -> dict[str, Score]:
    """Return 1, 0.5 or 0 for ours against theirs, by example id, with both orders' verdicts."""
    ours, theirs = pair
    found = {}
    for row in rows:
        if row.id in ours and row.id in theirs:
            duels = _duels(rubric, row, (ours[row.id], theirs[row.id]), verdicts, judges)
            score = _score(duels)
            more: dict[str, str] = {}
            for side, text in (("theirs", theirs[row.id]), ("ours", ours[row.id])):
                if doubt := suspicion(text):
                    more = {SUSPECTED: doubt, SIDE: side}
            found[row.id] = Score(score.value, {**score.evidence, **more})
    return found


def _both(rubric: Rubric, row: Example, ours: str, theirs: str) -> tuple[Question, Question]:
    return pairwise(rubric, row, ours, theirs), pairwise(rubric, row, theirs, ours)


def _same(ours: str, theirs: str) -> bool:
    return ours.strip() == theirs.strip()


def _duels(
    rubric: Rubric,
    row: Example,
    texts: tuple[str, str],
    verdicts: Verdicts,
    judges: Sequence[Judge],
) -> dict[str, Duel]:
    if _same(*texts):
        same = Verdict("tie", "the answers are the same")
        return {judge.name: Duel(same, same, same=True) for judge in judges}
    straight, turned = _both(rubric, row, *texts)
    return {
        judge.name: Duel(verdicts.of(judge, straight), verdicts.of(judge, turned))
        for judge in judges
    }


def _score(duels: Mapping[str, Duel]) -> Score:
    """Return the panel's decision: what more than half of the judges that decided prefer."""
    decided = {name: duel.better for name, duel in duels.items() if duel.better is not None}
    if not decided:
        duel = next(iter(duels.values()))
        why = duel.straight.problem or duel.turned.problem
        return Score(None, {"source": SOURCE, "why": why})
    winner, votes = Counter(decided.values()).most_common(1)[0]
    better = winner if votes > len(decided) / 2 else "tie"
    shown = next(duel for name, duel in duels.items() if name in decided)
    evidence: dict[str, Any] = {
        "source": SOURCE,
        "better": better,
        "why": shown.straight.reason,
        "turned": shown.turned.reason,
        "same": shown.same,
        "conflicts": sum(duel.conflict for duel in duels.values()),
        "first": sum(
            verdict.outcome == "first"
            for name in decided
            for verdict in (duels[name].straight, duels[name].turned)
        ),
        "orders": 0 if shown.same else 2 * len(decided),
    }
    if len(duels) > 1:
        evidence["judges"] = decided
    return Score(VALUES[better], evidence)
