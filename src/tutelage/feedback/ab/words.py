"""What an analysis says, in sentences a person reads: the verdict, each metric, what to mind."""

from __future__ import annotations

import math

import numpy as np

from tutelage.feedback.ab.analysis import DAY_S, Analysis, Compared, Needed
from tutelage.feedback.ab.effect import BURN_IN, FEW, Effect
from tutelage.feedback.ab.metrics import Metric
from tutelage.feedback.ab.trial import Trial

_WEEK_S = 7 * DAY_S
_HEAVY = 0.1  # of an arm's requests, from one user


def amount(metric: Metric, value: float) -> str:
    """Return an arm's mean as people read it."""
    if not math.isfinite(value):
        return "–"
    if metric.form == "share":
        return f"{value:.1%}"
    if metric.form == "score":
        return f"{value:.3f}"
    shown = math.exp(value) if metric.form == "ratio" else value
    return f"{_digits(shown)} {metric.unit}".rstrip()


def change(metric: Metric, value: float) -> str:
    """Return a difference as people read it: points of a share, percent of a ratio."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    if metric.form == "ratio":
        size = abs(math.expm1(value))
    shown = {
        "share": f"{size * 100:.1f} points",
        "score": f"{size:.3f}",
        "ratio": f"{size:.1%}",
        "amount": f"{_digits(size)} {metric.unit}".rstrip(),
    }[metric.form]
    return f"{'−' if value < 0 else '+'}{shown}"


def interval(one: Compared) -> str:
    """Return the interval in words, or why there is none yet."""
    low, high = one.effect.low, one.effect.high
    if low is None or high is None:
        return "no interval yet"
    return f"{change(one.metric, low)} to {change(one.metric, high)}"


def of_metric(one: Compared) -> str:
    """Return the sentence on one metric."""
    metric, effect = one.metric, one.effect
    if one.outcome == "no_data":
        arms = [("stable", effect.stable), ("candidate", effect.candidate)]
        missing = " and ".join(name for name, arm in arms if not arm.values)
        return f"{metric.name}: nothing is known of the {missing} release's answers yet"
    told = (
        f"{amount(metric, effect.candidate.mean)} against {amount(metric, effect.stable.mean)}, "
        f"{change(metric, effect.difference)}"
    )
    if effect.low is None:
        return f"{metric.name}: {told}; {_why_none(effect)}"
    word = {
        "better": "better", "worse": "worse", "higher": "higher", "lower": "lower",
        "same": f"the same within {_margin(one)}", "open": "open",
    }[one.outcome]  # fmt: skip
    low, high = (change(metric, end) for end in (effect.low, effect.high or 0.0))
    return f"{metric.name}: {word}; {told}, between {low} and {high}"


def _why_none(effect: Effect) -> str:
    """Return why there is no interval."""
    few = min((effect.stable, effect.candidate), key=lambda arm: arm.users)
    if few.users >= BURN_IN and min(effect.stable.worth, effect.candidate.worth) < FEW:
        return "no interval, because a few users gave most of the answers"
    if few.users >= BURN_IN and effect.stable.variance + effect.candidate.variance == 0:
        return "no interval, because all values are the same"
    return f"too few users for an interval ({few.users} in one arm)"


def verdict(found: Analysis, candidate: str, stable: str) -> str:
    """Return the one sentence that answers the reader's question."""
    one = found.primary
    name, told = one.metric.name, of_metric(one).partition("; ")[2] or of_metric(one)
    match found.verdict:
        case "broken":
            return f"No comparison can be trusted: {found.balance.sentence()}"
        case "no_data":
            return f"Nothing to compare yet: {of_metric(one)}"
        case "better":
            return f"{candidate} is better than {stable} by {name}: {told}"
        case "worse":
            return f"{candidate} is worse than {stable} by {name}: {told}"
        case "same":
            return f"{candidate} and {stable} are the same by {name} within {_margin(one)}: {told}"
        case "mixed":
            worse = ", ".join(o.metric.name for o in found.others if o.outcome == "worse")
            return (
                f"{candidate} is better than {stable} by {name} ({told}), but worse by {worse}: "
                "weigh them"
            )
        case _:
            return f"Not enough evidence that {candidate} and {stable} differ by {name}: {told}"


def needed(found: Analysis) -> list[str]:
    """Return what more would settle the deciding metric."""
    one, lines = found.primary, []
    if one.if_real is not None:
        seen = change(one.metric, one.effect.difference)
        lines.append(f"If the difference is as it looks ({seen}), {_more(one.if_real)} show it.")
    if one.for_margin is not None:
        lines.append(
            f"To tell a difference of {_margin(one)} from none, {_more(one.for_margin)} are needed."
        )
    return lines


def _more(more: Needed) -> str:
    if more.users is None:
        return "no number of users would"
    days = "" if more.days is None else f" ({_days(more.days)} at this pace)"
    return f"about {_round(more.users):,} more users{days}"


def caveats(found: Analysis, trial: Trial) -> list[str]:
    """Return what a reader should mind, the weightiest first."""
    notes = []
    if trial.crossed:
        notes.append(
            f"{trial.crossed:,} of {trial.users:,} users met both releases; they count for the "
            "one they met first, which makes the arms look more alike than they are."
        )
    notes += _novelty(found)
    notes += _told(found)
    length = float(trial.at[-1] - trial.at[0]) if len(trial.at) else 0.0
    if 0 < length < _WEEK_S:
        notes.append(f"It has run for {_days(length / DAY_S)}: a week shows every weekday once.")
    nobody = 1 - float(trial.named[trial.user].mean()) if len(trial.user) else 0.0
    if nobody > 0:
        notes.append(
            f"{nobody:.0%} of the requests name no user: each counts as a user of its own, and the "
            "same person may have met both releases."
        )
    return [*notes, *_heavy(trial)]


def _novelty(found: Analysis) -> list[str]:
    new = found.novelty
    if new is None or not new.enough:
        if found.primary.outcome in ("better", "worse"):
            return ["Whether the difference lasts can't be told: too few users came back on a "
                    "later day. What is new may please (or vex) because it is new."]  # fmt: skip
        return []
    if not new.fades:
        return []
    metric = found.primary.metric
    return [
        "The difference fades: "
        f"{change(metric, new.first.difference)} on a user's first day, "
        f"{change(metric, new.later.difference)} on later days. It may be the charm of the new."
    ]


def _told(found: Analysis) -> list[str]:
    told = next((one for one in found.others if one.metric.name == "told"), None)
    if told is None or told.outcome not in ("higher", "lower"):
        return []
    effect = told.effect
    return [
        f"Users spoke up on {effect.candidate.mean:.1%} of the candidate's answers and "
        f"{effect.stable.mean:.1%} of the stable release's: those who spoke may not be alike."
    ]


def _heavy(trial: Trial) -> list[str]:
    notes = []
    for name, arm in (("stable", False), ("candidate", True)):
        users = trial.user[trial.arms[trial.user] == arm]
        if len(users) < 100:
            continue
        top = float(np.bincount(users).max()) / len(users)
        if top > _HEAVY:
            notes.append(f"One user sent {top:.0%} of the {name} release's requests.")
    return notes


def _margin(one: Compared) -> str:
    return change(one.metric, one.margin).lstrip("+")


def _days(days: float) -> str:
    if days < 2:
        return f"{days * 24:.0f} hours"
    return f"{_round(math.ceil(days)):,} days"


def _round(number: int) -> int:
    """Return a count with two digits that matter, rounded up."""
    if number < 100:
        return number
    step: int = 10 ** (len(str(number)) - 2)
    return -(-number // step) * step


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
