"""Judges inside an evaluation: their scores join the verdict, and gate only where they may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tutelage.evaluation.candidates import TUNED
from tutelage.evaluation.judges.marks import Table
from tutelage.evaluation.judges.rubric import make_rubric, metric_names
from tutelage.evaluation.judges.trust import panel_id, trusted
from tutelage.workflows.evaluation.judge import make_case, make_judges

if TYPE_CHECKING:
    from tutelage.evaluation.rows import RowResult
    from tutelage.evaluation.task import Task
    from tutelage.workflows.context import Context
    from tutelage.workflows.evaluation.evaluate_job import Job


def judge_scores(job: Job, task: Task, answers: Mapping[str, Mapping[str, RowResult]]) -> Table:
    """Return the judges' scores: a function of MORE_SCORES. Nothing without evaluate.judge."""
    settings = job.ctx.config.evaluate.judge
    if settings is None or (settings.mode == "pairwise" and TUNED not in answers):
        return {}
    texts = {
        name: {item: row.text for item, row in given.items() if not row.failed}
        for name, given in answers.items()
    }
    ids = [row.id for row in task.rows]
    case = make_case(job.ctx, task.rows, texts, dict(zip(ids, task.clusters, strict=True)))
    return case.scores(case.asker(job.ctx).ask(case.questions()))


def judge_metrics(ctx: Context) -> Sequence[str]:
    """Return the names of the scores that the judges will give: a function of METRICS."""
    settings = ctx.config.evaluate.judge
    if settings is None:
        return ()
    return metric_names(make_rubric(ctx.config), tuple(settings.against))


def judge_trust(ctx: Context, metric: str) -> str | None:
    """Return why a judge's metric may not gate; None where it may: a function of TRUST."""
    settings = ctx.config.evaluate.judge
    if settings is None or metric not in judge_metrics(ctx):
        return None
    who = panel_id(make_judges(ctx, settings), settings.panel)
    ok, why = trusted(ctx.store, who, make_rubric(ctx.config), metric, settings)
    return None if ok else why


def judge_inputs(ctx: Context) -> Mapping[str, Any]:
    """Return who judges and how far they are trusted: a function of INPUTS."""
    settings = ctx.config.evaluate.judge
    if settings is None:
        return {}
    who = panel_id(make_judges(ctx, settings), settings.panel)
    return {"judges": who, "trust": {name: judge_trust(ctx, name) for name in judge_metrics(ctx)}}
