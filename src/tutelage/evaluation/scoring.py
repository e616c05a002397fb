"""Turns answers into numbers: every metric for every candidate, and the tuned one against each.

Rows that could not be scored keep a value of None: they are counted and left out of means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tutelage.evaluation.candidates import CONSTRAINED, TUNED
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.apply import score_rows, summary
from tutelage.evaluation.scorers.base import Score, Scorer
from tutelage.evaluation.scorers.classification import Confusion, confusion, expected_label
from tutelage.evaluation.significance import (
    Difference,
    Interval,
    holm,
    mean_interval,
    paired_difference,
)
from tutelage.evaluation.task import Task
from tutelage.evaluation.usage import Usage, usage

NOT_GIVEN = Score(None, {"why": "nobody scored this row"})


@dataclass(frozen=True)
class Scored:
    """One candidate: its answers and scores by example id, and what they come to."""

    name: str
    title: str
    rows: dict[str, RowResult]
    scores: dict[str, dict[str, Score]]  # metric → example id → score
    means: dict[str, Interval]  # metric → mean with interval
    usage: Usage | None = None  # free answers only
    confusion: Confusion | None = None  # classification only
    extra: dict[str, float] = field(default_factory=dict)  # macro_f1, bleu.corpus

    def unscored(self, metric: str) -> int:
        """Return how many rows have no value for `metric`."""
        return sum(score.value is None for score in self.scores[metric].values())


@dataclass(frozen=True)
class Comparison:
    """Tuned minus another candidate on the primary metric; `p_holm` is corrected for the family."""

    other: str
    difference: Difference
    p_holm: float


def score_candidate(
    task: Task,
    scorers: Mapping[str, Scorer],
    answers: Mapping[str, RowResult],
    name_title: tuple[str, str],
    *,
    confidence: float = 0.95,
    known: Mapping[str, Mapping[str, Score]] | None = None,
) -> Scored:
    """Score one candidate's answers on every metric of the task.

    A metric whose scores are `known` for every row is not scored again.
    """
    name, title = name_title
    ids = {row.id for row in task.rows}
    kept = {m: dict(given) for m, given in (known or {}).items() if ids <= set(given)}
    scores = {
        metric: kept[metric] if metric in kept else score_rows(scorer, task.rows, answers)
        for metric, scorer in scorers.items()
    }
    means = {metric: _mean(task, given, confidence) for metric, given in scores.items()}
    labelled = task.kind == "classification" and "accuracy" in scores
    matrix = _confusion(task, scores["accuracy"]) if labelled else None
    extra = {**(matrix.averages() if matrix else {}), **summary(scorers, scores)}
    written = [answers[row.id] for row in task.rows if row.id in answers]
    free = bool(written) and all(row.finish != "chosen" for row in written)
    cost = usage(written) if free else None
    return Scored(name, title, dict(answers), scores, means, cost, matrix, extra)


def with_scores(
    task: Task,
    scored: Scored,
    given: Mapping[str, Mapping[str, Score]],
    *,
    confidence: float = 0.95,
) -> Scored:
    """Return the candidate with more metrics, by example id; rows left out count as unscored."""
    if not given:
        return scored
    more = {
        metric: {row.id: scores.get(row.id, NOT_GIVEN) for row in task.rows}
        for metric, scores in given.items()
    }
    means = {metric: _mean(task, scores, confidence) for metric, scores in more.items()}
    return replace(scored, scores={**scored.scores, **more}, means={**scored.means, **means})


def _mean(task: Task, given: Mapping[str, Score], confidence: float) -> Interval:
    kept = [
        (score.value, cluster)
        for row, cluster in zip(task.rows, task.clusters, strict=True)
        if (score := given[row.id]).value is not None
    ]
    return mean_interval(
        [value for value, _ in kept], clusters=[c for _, c in kept], confidence=confidence
    )


def _confusion(task: Task, given: Mapping[str, Score]) -> Confusion:
    pairs = []
    for row in task.rows:
        expected = expected_label(row, task.output)
        if expected is not None and given[row.id].value is not None:
            pairs.append((expected, given[row.id].evidence.get("predicted")))
    return confusion(pairs, task.labels or None)


def differences(
    task: Task, scored: Mapping[str, Scored], *, confidence: float = 0.95, seed: int = 0
) -> dict[str, Comparison]:
    """Return tuned against every other candidate, rows paired, p-values Holm-corrected.

    Constrained candidates are compared with the constrained tuned model, all others with the
    freely written answers. Empty without a tuned candidate.
    """
    if TUNED not in scored:
        return {}
    found: dict[str, Difference] = {}
    for name, other in scored.items():
        constrained = name.endswith(CONSTRAINED)
        ours = scored.get(TUNED + CONSTRAINED) if constrained else scored[TUNED]
        if ours is not None and name not in (TUNED, TUNED + CONSTRAINED):
            found[name] = _difference(task, ours, other, confidence, seed)
    corrected = holm([d.p for d in found.values()])
    return {
        name: Comparison(name, d, p) for (name, d), p in zip(found.items(), corrected, strict=True)
    }


def _difference(
    task: Task, ours: Scored, other: Scored, confidence: float, seed: int
) -> Difference:
    """Pair the rows both have a value for."""
    left, right = ours.scores[task.primary], other.scores[task.primary]
    both = [
        (left[row.id].value, right[row.id].value, cluster)
        for row, cluster in zip(task.rows, task.clusters, strict=True)
        if left[row.id].value is not None and right[row.id].value is not None
    ]
    return paired_difference(
        np.array([a for a, _, _ in both], dtype=float),
        np.array([b for _, b, _ in both], dtype=float),
        clusters=[c for _, _, c in both],
        confidence=confidence,
        seed=seed,
    )
