"""Judge an A/B test: is the split sound, which arm is better by each metric, what would be needed.

One metric decides. It has half of the error `alpha`, the others share the other half (Bonferroni),
so that of all that is ever said of them, at any look, something is wrong in at most `alpha` of
tests. It reads no store and writes no file; words.py says it in sentences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tutelage.feedback.ab.balance import Balance, balance
from tutelage.feedback.ab.bounds import information_for
from tutelage.feedback.ab.effect import (
    BURN_IN,
    HORIZON,
    Design,
    Effect,
    Scale,
    Values,
    effect_of,
    scale_of,
)
from tutelage.feedback.ab.metrics import FEEDBACK, Metric, chosen
from tutelage.feedback.ab.trial import Trial

DAY_S = 86_400.0
_LOOKS = 40  # points of the path
_RELATIVE = 0.05  # the difference that matters where a metric has no scale of its own
Outcome = Literal["better", "worse", "higher", "lower", "same", "open", "no_data"]
Verdict = Literal["better", "worse", "same", "mixed", "not_enough_evidence", "broken", "no_data"]


@dataclass(frozen=True)
class Question:
    """What is asked, before the test is looked at.

    `margin` is the smallest difference that matters, of metrics from 0 to 1; of others 5 % is.
    `horizon` is how many users the test is planned for: intervals are sharpest there.
    """

    primary: str = FEEDBACK
    metrics: tuple[str, ...] | None = None
    alpha: float = 0.05
    margin: float = 0.02
    horizon: int = HORIZON


@dataclass(frozen=True)
class Needed:
    """How many more users would show something, and in how many days they come; None: never."""

    users: int | None
    days: float | None


@dataclass(frozen=True)
class Compared:
    """One metric: its effect and what it means. Ratios' effects are in logarithms."""

    metric: Metric
    effect: Effect
    alpha: float
    margin: float
    outcome: Outcome
    if_real: Needed | None = None  # to show the difference as it looks
    for_margin: Needed | None = None  # to rule out one of `margin`


@dataclass(frozen=True)
class Look:
    """The deciding metric's difference as it stood: `at` in seconds, users so far."""

    at: float
    users: int
    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Novelty:
    """The difference on users' first day and later; `fades` if the later one is nearer to 0."""

    first: Effect
    later: Effect
    fades: bool
    enough: bool


@dataclass(frozen=True)
class Analysis:
    """All that the test shows now."""

    question: Question
    balance: Balance
    primary: Compared
    others: tuple[Compared, ...]
    path: tuple[Look, ...]
    novelty: Novelty | None
    verdict: Verdict


def analyse(
    trial: Trial, known: Mapping[str, Metric], question: Question, split: float
) -> Analysis:
    """Return what `trial` shows; `split` is the candidate's share of the users, in (0, 1).

    Raises DataError for a metric that is not in `known`.
    """
    primary, beside = chosen(known, question.primary, question.metrics)
    alpha = question.alpha / 2 if beside else question.alpha
    found = _compare(trial, primary, question, split, alpha)
    each = question.alpha / 2 / max(1, len(beside))
    others = tuple(
        _compare(trial, metric, question, split, each)
        for metric in beside
        if len(trial.values(metric.name))
    )
    sound = balance(trial.arms, split)
    return Analysis(
        question,
        sound,
        found,
        others,
        _path(trial, primary, question, split, alpha),
        _novelty(trial, primary),
        _verdict(sound, found, others),
    )


def _compare(
    trial: Trial, metric: Metric, question: Question, split: float, alpha: float
) -> Compared:
    values = trial.values(metric.name)
    scale = _scale(trial, metric, values, Design(split, alpha, question.horizon))
    effect = effect_of(values, scale, alpha, bounded=metric.bounded)
    margin = margin_of(metric, effect, question)
    outcome = _outcome(metric, effect, margin, decides=metric.name == question.primary)
    if outcome != "open" or scale is None or not effect.information:
        return Compared(metric, effect, alpha, margin, outcome)
    pace = _pace(trial)
    return Compared(
        metric,
        effect,
        alpha,
        margin,
        outcome,
        _needed(effect, abs(effect.difference), alpha, trial.users, pace),
        _needed(effect, margin, alpha, trial.users, pace),
    )


def _scale(trial: Trial, metric: Metric, values: Values, design: Design) -> Scale | None:
    come = trial.come(metric.name)
    return scale_of(values, come, design, bounded=metric.bounded) if len(values) else None


def margin_of(metric: Metric, effect: Effect, question: Question) -> float:
    """Return the difference that matters, in the metric's own scale."""
    if metric.bounded:
        return question.margin
    if metric.form == "ratio":
        return math.log1p(_RELATIVE)
    return _RELATIVE * abs(effect.stable.mean) if effect.stable.values else math.inf


def _outcome(metric: Metric, effect: Effect, margin: float, *, decides: bool) -> Outcome:
    """Return what the interval says. Of the deciding metric a difference under `margin` is none."""
    if not effect.stable.values or not effect.candidate.values:
        return "no_data"
    if effect.within(margin) and (decides or effect.decided == 0):
        return "same"
    if effect.decided == 0:
        return "open"
    if metric.better == 0:
        return "higher" if effect.decided > 0 else "lower"
    return "better" if effect.decided == metric.better else "worse"


def _pace(trial: Trial) -> float:
    """Return new users a day, over the time since the first request."""
    if not len(trial.at):
        return 0.0
    return trial.users / max(float(trial.at[-1] - trial.at[0]), 3600.0) * DAY_S


def _needed(effect: Effect, goal: float, alpha: float, users: int, pace: float) -> Needed:
    goal_information = information_for(goal, effect.r, alpha)
    if not math.isfinite(goal_information):
        return Needed(None, None)
    more = max(0, math.ceil(users * (goal_information / effect.information - 1)))
    return Needed(more, more / pace if pace else None)


def _path(
    trial: Trial, metric: Metric, question: Question, split: float, alpha: float
) -> tuple[Look, ...]:
    values = trial.values(metric.name)
    scale = _scale(trial, metric, values, Design(split, alpha, question.horizon))
    if scale is None or not len(values):
        return ()
    come, looks = trial.come(metric.name), []
    places = np.arange(len(values))
    times = np.linspace(values.at[scale.since - 1], values.at[-1], _LOOKS)
    ends = np.unique(np.searchsorted(values.at, times, side="right"))
    for end in ends[ends >= scale.since]:
        effect = effect_of(values.only(places < end), scale, alpha, bounded=metric.bounded)
        at, users = float(values.at[end - 1]), int(come[end - 1])
        looks.append(Look(at, users, effect.difference, effect.low, effect.high))
    return tuple(looks)


def _novelty(trial: Trial, metric: Metric) -> Novelty | None:
    """Return the difference on first and later days of each user; None without values."""
    values = trial.values(metric.name)
    if not len(values):
        return None
    _, first = np.unique(trial.user, return_index=True)
    early = values.at - trial.at[first][values.user] < DAY_S
    begin = effect_of(values.only(early), None, 1.0, bounded=metric.bounded)
    later = effect_of(values.only(~early), None, 1.0, bounded=metric.bounded)
    arms = (begin.stable, begin.candidate, later.stable, later.candidate)
    enough = all(arm.users >= BURN_IN for arm in arms)
    fades = False
    if enough:
        change = later.difference - begin.difference
        noise = math.sqrt(sum(arm.variance for arm in arms))
        fades = abs(change) > 1.96 * noise and abs(later.difference) < abs(begin.difference)
    return Novelty(begin, later, fades, enough)


def _verdict(sound: Balance, primary: Compared, others: tuple[Compared, ...]) -> Verdict:
    if sound.broken:
        return "broken"
    if primary.outcome == "better":
        return "mixed" if any(one.outcome == "worse" for one in others) else "better"
    if primary.outcome == "worse":
        return "worse"
    if primary.outcome == "same":
        return "same"
    return "no_data" if primary.outcome == "no_data" else "not_enough_evidence"
