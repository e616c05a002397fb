"""By what two releases are compared: each metric's name, direction and form. It reads nothing.

`feedback` is the users' verdict on an answer (feedback/outcome.py), and the one that decides unless
another is named beforehand. Live evaluation's scores are called `score.` and their name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tutelage.core.errors import DataError, did_you_mean
from tutelage.feedback.signals import Declared

FEEDBACK = "feedback"
SCORE = "score."
# share: of the answers, 0..1. score: from 0 to 1. ratio: values are logarithms, and arms are
# compared by their quotient. amount: in a unit of its own.
Form = Literal["share", "score", "ratio", "amount"]


@dataclass(frozen=True)
class Metric:
    """One metric. `better` is 1 if more is better, -1 if less is, 0 if neither."""

    name: str
    says: str
    better: int
    form: Form
    unit: str = ""

    @property
    def bounded(self) -> bool:
        """Whether every value lies in 0..1."""
        return self.form in ("share", "score")


OWN = (
    Metric("told", "answers on which somebody said something", 0, "share"),
    Metric("failed", "requests that failed", -1, "share"),
    Metric("flagged", "answers that a check objected to", -1, "share"),
    Metric("latency", "time of an answer, geometric mean", -1, "ratio", "ms"),
    Metric("first_token", "time until the first token, geometric mean", -1, "ratio", "ms"),
    Metric("tokens", "tokens of an answer", 0, "amount", "tokens"),
    Metric("cost", "cost of a request", -1, "amount"),
)


def catalogue(
    declared: Mapping[str, Declared], scores: Iterable[str] = (), currency: str = ""
) -> dict[str, Metric]:
    """Return every metric there can be, by name: users' verdict, signals, scores, our own."""
    found = {FEEDBACK: Metric(FEEDBACK, "what users said and did, 0 (bad) to 1 (good)", 1, "score")}
    for rule in declared.values():
        found[rule.name] = _of_signal(rule)
    for name in sorted(scores):
        found[SCORE + name] = Metric(SCORE + name, "live evaluation", 1, "score")
    for metric in OWN:
        unit = currency if metric.name == "cost" else metric.unit
        found.setdefault(
            metric.name, Metric(metric.name, metric.says, metric.better, metric.form, unit)
        )
    return found


def _of_signal(rule: Declared) -> Metric:
    if rule.kind == "text":
        says = {"edit": "answers that were corrected", "comment": "answers with a comment"}
        return Metric(rule.name, says.get(rule.name, rule.meaning), rule.direction, "share")
    if rule.kind == "flag":
        return Metric(rule.name, rule.meaning, rule.direction, "share")
    if rule.kind == "number" and (rule.low, rule.high) == (0.0, 1.0):
        return Metric(rule.name, rule.meaning, rule.direction, "score")
    unit = "s" if rule.kind == "seconds" else ""
    return Metric(rule.name, rule.meaning, rule.direction, "amount", unit)


def chosen(
    known: Mapping[str, Metric], primary: str, others: Iterable[str] | None
) -> tuple[Metric, list[Metric]]:
    """Return the metric that decides and those beside it; raise DataError for an unknown name.

    Unset, all others stand beside it. A metric of which neither more nor less is better decides
    nothing.
    """
    names = [name for name in known if name != primary] if others is None else list(others)
    for name in (primary, *names):
        if name not in known:
            raise DataError(
                f"there is no metric {name!r}",
                fix=f"{did_you_mean(name, known)}Known: {', '.join(known)}",
            )
    if known[primary].better == 0:
        raise DataError(
            f"{primary!r} can't decide: neither more nor less of it is better",
            fix="Choose another metric, or give the signal a direction in tutelage.yaml",
        )
    beside = dict.fromkeys(name for name in names if name != primary)
    return known[primary], [known[name] for name in beside]
