"""Answers marked one by one: which questions that takes, and what the verdicts come to.

A level becomes 0..1, several judges' levels become one, the mean over the criteria is the overall
mark. An answer that lacks a verdict on a criterion has no overall mark: it counts as unscored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from tutelage.core.example import Example
from tutelage.evaluation.judges.asker import Judge, Verdicts
from tutelage.evaluation.judges.fence import suspicion
from tutelage.evaluation.judges.questions import Question, pointwise
from tutelage.evaluation.judges.rubric import OVERALL, Criterion, Rubric
from tutelage.evaluation.scorers.base import Score

SOURCE = "judge"  # of every score here
SUSPECTED = "injection_suspected"
Texts = Mapping[str, Mapping[str, str]]  # candidate → example id → what it answered
Table = dict[str, dict[str, dict[str, Score]]]  # candidate → metric → example id → score
Panel = Literal["mean", "majority"]


def questions(rubric: Rubric, rows: Sequence[Example], texts: Texts) -> list[Question]:
    """Return every question, row by row, so that a run that stops early leaves whole rows."""
    return [
        pointwise(rubric, criterion, row, given[row.id])
        for row in rows
        for given in texts.values()
        if row.id in given
        for criterion in rubric.criteria
    ]


def scores(
    rubric: Rubric,
    rows: Sequence[Example],
    texts: Texts,
    verdicts: Verdicts,
    judges: Sequence[Judge],
    panel: Panel = "mean",
) -> Table:
    """Return the scores of every criterion, and the overall one, of every candidate."""
    table: Table = {}
    for candidate, given in texts.items():
        mine: dict[str, dict[str, Score]] = {OVERALL: {}}
        for row in rows:
            if row.id not in given:
                continue
            found = {
                c: _mark(c, pointwise(rubric, c, row, given[row.id]), verdicts, judges, panel)
                for c in rubric.criteria
            }
            doubt = suspicion(given[row.id])
            for criterion, score in found.items():
                marked = _with_doubt(score, doubt)
                mine.setdefault(criterion.metric, {})[row.id] = marked
            mine[OVERALL][row.id] = _with_doubt(_overall(found), doubt)
        table[candidate] = mine
    return table


def level_of(levels: Sequence[int], panel: Panel) -> float:
    """Return one level of several judges': their mean, or the one most of them name.

    If two levels are named equally often, the majority's is the mean of those.
    """
    if panel == "mean":
        return sum(levels) / len(levels)
    counted = Counter(levels)
    most = max(counted.values())
    top = [level for level, count in counted.items() if count == most]
    return sum(top) / len(top)


def _mark(
    criterion: Criterion,
    question: Question,
    verdicts: Verdicts,
    judges: Sequence[Judge],
    panel: Panel,
) -> Score:
    given = {judge.name: verdicts.of(judge, question) for judge in judges}
    levels = {name: int(v.outcome) for name, v in given.items() if v.outcome is not None}
    if not levels:
        problem = next(iter(given.values())).problem
        return Score(None, {"source": SOURCE, "why": problem})
    level = level_of(list(levels.values()), panel)
    evidence = {
        "source": SOURCE,
        "level": level,
        "of": len(criterion.levels),
        "why": next(v.reason for v in given.values() if v.outcome is not None),
    }
    if len(judges) > 1:
        evidence["judges"] = levels
    return Score(criterion.value(level), evidence)


def _overall(found: Mapping[Criterion, Score]) -> Score:
    values = {c.name: score.value for c, score in found.items()}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        why = f"no verdict on {', '.join(missing)}"
        return Score(None, {"source": SOURCE, "why": why})
    given = [value for value in values.values() if value is not None]
    return Score(sum(given) / len(given), {"source": SOURCE, **values})


def _with_doubt(score: Score, doubt: str | None) -> Score:
    return Score(score.value, {**score.evidence, SUSPECTED: doubt}) if doubt else score


def disagreement(marks: Iterable[Score]) -> float | None:
    """Return the share of answers on which judges of a panel named different levels.

    None if no answer was marked by two.
    """
    named = [list(s.evidence["judges"].values()) for s in marks if "judges" in s.evidence]
    both = [levels for levels in named if len(levels) > 1]
    return sum(len(set(levels)) > 1 for levels in both) / len(both) if both else None
