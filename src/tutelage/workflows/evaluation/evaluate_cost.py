"""The cost of answers as a score of the one score table, from the prices of tutelage.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tutelage.evaluation.cost import cost_scores, rate_of
from tutelage.evaluation.measures import COST
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.base import Score

if TYPE_CHECKING:
    from tutelage.evaluation.task import Task
    from tutelage.workflows.context import Context
    from tutelage.workflows.evaluation.evaluate_job import Job


def costs(
    job: Job, task: Task, answers: Mapping[str, Mapping[str, RowResult]]
) -> dict[str, dict[str, dict[str, Score]]]:
    """Return what answers cost, where there is a price: a function of MORE_SCORES."""
    config = job.ctx.config
    hosted = config.hosted if job.source is None else None
    models = [hosted.model] if hosted else [config.model]
    hour = None if hosted else config.train.hour_price
    found = {}
    for name, rows in answers.items():
        rate = rate_of(config.prices, name, models, hour)
        given = cost_scores(rows.values(), rate) if rate is not None else {}
        if given:
            found[name] = {COST: given}
    return found


def cost_metrics(ctx: Context) -> list[str]:
    """Return the metric's name where there are prices: a function of METRICS."""
    prices = ctx.config.prices
    priced = prices.tokens or prices.hour is not None or ctx.config.train.hour_price is not None
    return [COST] if priced else []


def cost_inputs(ctx: Context) -> dict[str, Any]:
    """Return the prices, which change a verdict and no answer: a function of INPUTS."""
    if not cost_metrics(ctx):
        return {}
    config = ctx.config
    return {"prices": config.prices.model_dump(mode="json"), "hour": config.train.hour_price}
