"""Scores that no scorer of the task gives: a judge's, people's. They join before the verdict.

Each function of MORE_SCORES gets the evaluation, its task and every candidate's answers, and
returns what it has: {candidate: {metric: {example id: Score}}}. Rows that it leaves out count as
unscored. A score whose evidence has a `source` (judge, human, rule) is kept under it in the store.
Each function of TRUST says why a metric may not gate; None where it may, or is not its own.
Each function of METRICS names the metrics that its scores may bring, so that criteria can.
Each function of INPUTS says what a verdict hangs on besides the settings of `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.base import Score
from tutelage.evaluation.task import Task
from tutelage.workflows.evaluation.evaluate_cost import cost_inputs, cost_metrics, costs
from tutelage.workflows.evaluation.human_scores import human_inputs, human_metrics, human_scores
from tutelage.workflows.evaluation.judge_scores import (
    judge_inputs,
    judge_metrics,
    judge_scores,
    judge_trust,
)

if TYPE_CHECKING:
    from tutelage.workflows.context import Context
    from tutelage.workflows.evaluation.evaluate_job import Job

Answers = Mapping[str, Mapping[str, RowResult]]  # candidate → example id → answer
Given = dict[str, dict[str, dict[str, Score]]]  # candidate → metric → example id → score
MoreScores = Callable[["Job", Task, Answers], Given]
Trust = Callable[["Context", str], str | None]  # (context, metric) → why it may not gate
Metrics = Callable[["Context"], Sequence[str]]  # the names of metrics that may come
Inputs = Callable[["Context"], Mapping[str, Any]]

MORE_SCORES: tuple[MoreScores, ...] = (judge_scores, human_scores, costs)
TRUST: tuple[Trust, ...] = (judge_trust,)
METRICS: tuple[Metrics, ...] = (judge_metrics, human_metrics, cost_metrics)
INPUTS: tuple[Inputs, ...] = (judge_inputs, human_inputs, cost_inputs)

ASKING: tuple[MoreScores, ...] = (judge_scores,)  # those that ask a model


def more_scores(job: Job, task: Task, answers: Answers, *, asking: bool = True) -> Given:
    """Return what all of MORE_SCORES gave, as one table; without `asking` no model is asked."""
    table: Given = {}
    for ask in MORE_SCORES:
        if ask in ASKING and not asking:
            continue
        for candidate, metrics in ask(job, task, answers).items():
            mine = table.setdefault(candidate, {})
            for metric, scores in metrics.items():
                mine.setdefault(metric, {}).update(scores)
    return table


def untrusted(ctx: Context, metric: str) -> str | None:
    """Return why `metric` may not gate, or None."""
    return next((why for ask in TRUST if (why := ask(ctx, metric)) is not None), None)


def more_metrics(ctx: Context) -> list[str]:
    """Return the metrics that criteria may name besides those of the task."""
    return [name for names in METRICS for name in names(ctx)]


def more_inputs(ctx: Context) -> dict[str, Any]:
    """Return what changes a verdict although no setting of `evaluate` does."""
    return {key: value for ask in INPUTS for key, value in ask(ctx).items()}
