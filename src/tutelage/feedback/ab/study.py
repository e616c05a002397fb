"""Find a deployment's A/B tests, analyse one, and plan one from past traffic. Plain data out.

Every rollout whose requests are split at one share between 0 and 100 % for good is an A/B test:
where the share grows, users change arms and their answers can't be compared so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import utc_now
from tutelage.core.config import Project
from tutelage.core.errors import DataError, NotFound
from tutelage.feedback.ab.analysis import DAY_S, Question, analyse, margin_of
from tutelage.feedback.ab.bounds import fixed_information, information_for, tuned_for
from tutelage.feedback.ab.effect import BURN_IN, Arm, Effect, Values, arm_of
from tutelage.feedback.ab.metrics import SCORE, Metric, catalogue, chosen
from tutelage.feedback.ab.report import Test, document
from tutelage.feedback.ab.trial import Asked, Trial, read_trial
from tutelage.feedback.prices import prices
from tutelage.feedback.signals import declare
from tutelage.release.rollout import TERMINAL, RolloutPlan
from tutelage.release.routes import journal, require_deployment, rollouts
from tutelage.store.base import Store
from tutelage.store.records import RecordRow
from tutelage.store.releases import ReleaseRow, RolloutRow

_LISTED = 500
_MOST_DAYS = 36_500


def split_of(plan: RolloutPlan) -> float | None:
    """Return the share (0..1) at which a plan splits users for good; None if it does not."""
    answering = plan.steps[plan.shadow :]
    one = len(answering) == 1 and 0 < answering[0] < 100 and plan.replicas < 2
    return answering[0] / 100 if one else None


def tests(store: Store, deployment: str | None = None) -> list[dict[str, Any]]:
    """Return the A/B tests there were, newest first, of one deployment or of all."""
    names = _names(store)
    found = []
    for row in rollouts(store, deployment, _LISTED):
        split = split_of(RolloutPlan.from_dict(row.plan))
        if split is not None:
            found.append(
                {
                    "rollout": row.id,
                    "deployment": row.deployment,
                    "stable": names.get(row.baseline, row.baseline[:12]),
                    "candidate": names.get(row.candidate, row.candidate[:12]),
                    "split": split,
                    "state": row.state,
                    "began": row.created_at.isoformat(timespec="seconds"),
                }
            )
    return found


def study(
    store: Store, project: Project, question: Question, deployment: str, rollout: str | None = None
) -> dict[str, Any]:
    """Return the analysis of a test: the one named, or the deployment's newest.

    Raises DataError if there is none, or for a metric that is not known.
    """
    row = _find(store, deployment, rollout)
    plan = RolloutPlan.from_dict(row.plan)
    split = split_of(plan)
    if split is None:
        raise DataError(
            f"the rollout {row.id} is no A/B test: its share grows by steps",
            fix="`tutelage rollout status` judges it; `tutelage rollout start RELEASE "
            "--strategy ab` starts an A/B test",
        )
    where = (RecordRow.rollout == row.id, RecordRow.step >= plan.shadow)
    asked = Asked(where, row.created_at, row.candidate)
    declared = declare(project.feedback)
    trial = read_trial(store, asked, declared, prices(store, project))
    known = _known(project, trial)
    return document(_test(store, row, split), trial, analyse(trial, known, question, split))


def _known(project: Project, trial: Trial) -> dict[str, Metric]:
    scores = [name.removeprefix(SCORE) for name in trial.marks if name.startswith(SCORE)]
    return catalogue(declare(project.feedback), scores, project.prices.currency)


def _find(store: Store, deployment: str, rollout: str | None) -> RolloutRow:
    with store.session() as session:
        require_deployment(session, deployment)
        if rollout is not None:
            row = session.get(RolloutRow, rollout)
            if row is None or row.deployment != deployment:
                raise NotFound(
                    f"there is no rollout {rollout!r} of {deployment}",
                    fix="`tutelage ab list` shows the tests there were",
                )
            return row
    for row in rollouts(store, deployment, _LISTED):
        if split_of(RolloutPlan.from_dict(row.plan)) is not None:
            return row
    raise DataError(
        f"{deployment} has had no A/B test",
        fix="Start one: `tutelage rollout start RELEASE --strategy ab --split 50`",
    )


def _test(store: Store, row: RolloutRow, split: float) -> Test:
    names, why = _names(store), ""
    if row.state in TERMINAL:
        moves = journal(store, row.id)
        why = moves[-1].reason if moves else ""
    stable, candidate = (names.get(name, name[:12]) for name in (row.baseline, row.candidate))
    return Test(row.deployment, row.id, row.state, why, stable, candidate, split, row.created_at)


def _names(store: Store) -> dict[str, str]:
    with store.session() as session:
        rows = session.execute(select(ReleaseRow.id, ReleaseRow.name)).all()
    return {row.id: row.name for row in rows}


@dataclass(frozen=True)
class Proposal:
    """A test to come: the candidate's share 0..1, the difference to find, days to learn from."""

    split: float
    difference: float | None = None  # None: the margin of the question
    days: float = 30.0


def plan(
    store: Store, project: Project, question: Question, deployment: str, asked: Proposal
) -> dict[str, Any]:
    """Return how many users a test needs, from the traffic of the last days.

    Raises DataError if that traffic tells too little of the deciding metric.
    """
    _require(asked)
    began = utc_now() - timedelta(days=asked.days)
    where = (RecordRow.deployment == deployment, RecordRow.at >= began)
    with store.session() as session:
        require_deployment(session, deployment)
    declared = declare(project.feedback)
    trial = read_trial(store, Asked(where, began, None), declared, prices(store, project))
    metric, beside = chosen(_known(project, trial), question.primary, question.metrics)
    values = trial.values(metric.name)
    arm = arm_of(values, bounded=metric.bounded)
    if arm.users < 2 * BURN_IN:
        raise DataError(
            f"{arm.users} users of the last {asked.days:g} days tell something of "
            f"{metric.name!r}, and {2 * BURN_IN} are needed to plan with",
            fix="Look further back with --days, or plan with another --primary",
        )
    alpha = question.alpha / 2 if beside else question.alpha
    return _planned(trial, metric, (values, arm), (question, asked), alpha)


def _require(asked: Proposal) -> None:
    """Raise DataError for a proposal that means nothing."""
    if not 0 < asked.split < 1:
        raise DataError("the split is not between 0 and 100 %", fix="Write --split 50")
    if not 0 < asked.days <= _MOST_DAYS:
        raise DataError(f"{asked.days:g} days can't be looked back", fix="Write --days 30")
    if asked.difference is not None and not 0 < asked.difference < math.inf:
        raise DataError(
            f"a difference of {asked.difference:g} can't be found",
            fix="Write one that is larger than 0: it is found in either direction",
        )


def _planned(
    trial: Trial,
    metric: Metric,
    seen: tuple[Values, Arm],
    wanted: tuple[Question, Proposal],
    alpha: float,
) -> dict[str, Any]:
    (_, arm), (question, asked) = seen, wanted
    still = Effect(arm, arm, 0.0, None, None, 0.0, 0.0, 1.0)
    goal = _goal(metric, asked.difference) or margin_of(metric, still, question)
    if not 0 < goal < math.inf:
        raise DataError(
            f"a difference of {goal:g} can't be found", fix="Write one that is larger than 0"
        )
    one_user = arm.variance * trial.users  # of the mean, if all users were one
    each = asked.split * (1 - asked.split) / one_user  # information a user of a test
    horizon = tuned_for(question.horizon * each, alpha)
    users = math.ceil(information_for(goal, horizon, alpha) / each)
    once = math.ceil(fixed_information(goal, alpha) / each)
    length = max(float(trial.at[-1] - trial.at[0]), 3600.0) / DAY_S
    a_day = trial.users / length
    return {
        "metric": metric.name,
        "mean": math.exp(arm.mean) if metric.form == "ratio" else arm.mean,
        "difference": math.expm1(goal) if metric.form == "ratio" else goal,
        "split": asked.split,
        "alpha": alpha,
        "users": users,
        "users_if_looked_once": once,
        "users_a_day": a_day,
        "days": users / a_day,
        "learnt_from": {"users": trial.users, "telling": arm.users, "days": length},
    }


def _goal(metric: Metric, difference: float | None) -> float | None:
    if difference is None:
        return None
    return math.log1p(difference) if metric.form == "ratio" else difference


def as_question(values: Mapping[str, Any]) -> Question:
    """Return the question in `values` (what is None is as usual); raise DataError for nonsense."""
    given = {name: value for name, value in values.items() if value is not None}
    found = Question(**given)
    if not 0 < found.alpha < 0.5:
        raise DataError(f"alpha is {found.alpha:g}", fix="Write a risk between 0 and 0.5")
    if not found.margin > 0 or not math.isfinite(found.margin):
        raise DataError(f"the margin is {found.margin:g}", fix="Write one larger than 0")
    if not 40 <= found.horizon <= 10**9:
        raise DataError(f"the horizon is {found.horizon}", fix="Write 40 users or more")
    return found
