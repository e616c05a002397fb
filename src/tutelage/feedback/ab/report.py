"""An analysis as plain data: what `--json`, Python and HTTP give and what the page draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tutelage.feedback.ab import words
from tutelage.feedback.ab.analysis import Analysis, Compared, Needed
from tutelage.feedback.ab.effect import Arm
from tutelage.feedback.ab.metrics import Metric
from tutelage.feedback.ab.trial import Trial


@dataclass(frozen=True)
class Test:
    """Which test it is: names for people, the candidate's share, and where the rollout stands."""

    __test__ = False  # no test of ours: pytest shall not gather it

    deployment: str
    rollout: str
    state: str
    why: str  # it ended, empty while it runs
    stable: str
    candidate: str
    split: float  # 0..1
    began: datetime


def document(test: Test, trial: Trial, found: Analysis) -> dict[str, Any]:
    """Return the whole analysis. Differences are candidate minus stable.

    Those of ratios are relative: 0.12 is 12 % more.
    """
    notes = words.caveats(found, trial)
    if test.state == "rolled_back":
        notes.insert(0, "It was ended by a rollback for harm: what was seen last looks worse than "
                        "it is, because it ended there.")  # fmt: skip
    asked = found.question
    return {
        "deployment": test.deployment,
        "rollout": test.rollout,
        "state": test.state,
        "why": test.why,
        "stable": test.stable,
        "candidate": test.candidate,
        "split": test.split,
        "began": test.began.isoformat(timespec="seconds"),
        "until": _moment(test.began, float(trial.at[-1]) if len(trial.at) else 0.0),
        "verdict": found.verdict,
        "sentence": words.verdict(found, test.candidate, test.stable),
        "needed": words.needed(found),
        "caveats": notes,
        "asked": {
            "primary": asked.primary,
            "alpha": asked.alpha,
            "margin": asked.margin,
            "horizon": asked.horizon,
        },
        "balance": _balance(found, trial),
        "primary": _compared(found.primary),
        "metrics": [_compared(one) for one in found.others],
        "path": _path(test, found),
        "novelty": _novelty(found),
    }


def _balance(found: Analysis, trial: Trial) -> dict[str, Any]:
    sound, arm = found.balance, trial.arms[trial.user] if len(trial.user) else trial.arms
    ours = int(arm.sum())
    return {
        "users": {"stable": sound.stable, "candidate": sound.candidate},
        "requests": {"stable": len(arm) - ours, "candidate": ours},
        "share": sound.share,
        "expected": sound.expected,
        "p": sound.p,
        "broken": sound.broken,
        "crossed": trial.crossed,
        "sentence": sound.sentence(),
    }


def _compared(one: Compared) -> dict[str, Any]:
    metric, effect = one.metric, one.effect
    return {
        "name": metric.name,
        "says": metric.says,
        "better": metric.better,
        "form": metric.form,
        "unit": metric.unit,
        "outcome": one.outcome,
        "sentence": words.of_metric(one),
        "stable": _arm(metric, effect.stable),
        "candidate": _arm(metric, effect.candidate),
        "difference": _shown(metric, effect.difference),
        "low": _shown(metric, effect.low),
        "high": _shown(metric, effect.high),
        "alpha": one.alpha,
        "margin": _shown(metric, one.margin),
        "e_value": effect.e,
        "shown": {
            "stable": words.amount(metric, effect.stable.mean),
            "candidate": words.amount(metric, effect.candidate.mean),
            "difference": words.change(metric, effect.difference),
            "interval": words.interval(one),
        },
        "if_real": _needed(one.if_real),
        "for_margin": _needed(one.for_margin),
    }


def _arm(metric: Metric, arm: Arm) -> dict[str, Any]:
    mean = math.exp(arm.mean) if metric.form == "ratio" and arm.values else arm.mean
    return {"mean": mean if arm.values else None, "answers": arm.values, "users": arm.users}


def _shown(metric: Metric, value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return math.expm1(value) if metric.form == "ratio" else value


def _needed(more: Needed | None) -> dict[str, Any] | None:
    return None if more is None else {"users": more.users, "days": more.days}


def _path(test: Test, found: Analysis) -> list[dict[str, Any]]:
    metric = found.primary.metric
    return [
        {
            "at": _moment(test.began, look.at),
            "users": look.users,
            "difference": _shown(metric, look.difference),
            "low": _shown(metric, look.low),
            "high": _shown(metric, look.high),
        }
        for look in found.path
    ]


def _novelty(found: Analysis) -> dict[str, Any] | None:
    new, metric = found.novelty, found.primary.metric
    if new is None:
        return None
    return {
        "first_day": _shown(metric, new.first.difference),
        "later_days": _shown(metric, new.later.difference),
        "users_later": min(new.later.stable.users, new.later.candidate.users),
        "enough": new.enough,
        "fades": new.fades,
    }


def _moment(began: datetime, seconds: float) -> str:
    at = datetime.fromtimestamp(began.timestamp() + seconds, UTC)
    return at.isoformat(timespec="seconds")
