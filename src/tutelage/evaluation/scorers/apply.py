"""Runs one scorer over one candidate's answers; no answer, and a failed one, is unscored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tutelage.core.example import Example
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.base import Score, Scorer

UNSCORED = Score(None, {"why": "the request failed"})


def score_rows(
    scorer: Scorer, rows: Sequence[Example], answers: Mapping[str, RowResult]
) -> dict[str, Score]:
    """Return the score of each row by its id. `answers` are by row id; rows may lack one."""
    pairs = [
        (row, answers[row.id]) for row in rows if row.id in answers and not answers[row.id].failed
    ]
    prepare = getattr(scorer, "prepare", None)
    if prepare is not None:
        prepare(pairs)
    return {row.id: score_one(scorer, row, answers.get(row.id)) for row in rows}


def score_one(scorer: Scorer, row: Example, answer: RowResult | None) -> Score:
    """Return the score of one answer."""
    if answer is None or answer.failed:
        return UNSCORED
    whole = getattr(scorer, "score_answer", None)
    found: Score = whole(row, answer) if whole is not None else scorer.score(row, answer.text)
    if getattr(scorer, "rule", False):
        return Score(found.value, {**found.evidence, "source": "rule"})
    return found


def summary(
    scorers: Mapping[str, Scorer], scores: Mapping[str, Mapping[str, Score]]
) -> dict[str, float]:
    """Return the figures of whole candidates as {"metric.figure": value}.

    Corpus BLEU, scores a field and pass@10 are no means of rows; their scorers work them out.
    """
    found: dict[str, float] = {}
    for metric, scorer in scorers.items():
        whole = getattr(scorer, "summary", None)
        if whole is not None:
            found |= {f"{metric}.{name}": value for name, value in whole(scores[metric]).items()}
    return found
