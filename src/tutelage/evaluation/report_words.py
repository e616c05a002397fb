"""How a report names and writes things: metrics, candidates, figures, outcomes. Plain text only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core.html import Tone
from tutelage.core.html import figure as figure
from tutelage.evaluation.candidates import BASE, FEW_SHOT, TUNED
from tutelage.evaluation.criterion import percent, points
from tutelage.evaluation.measures import is_rate

Report = Mapping[str, Any]
TONE: dict[str, Tone] = {"pass": "good", "fail": "bad", "not_enough_evidence": "warn"}
WORD = {"pass": "Pass", "fail": "Fail", "not_enough_evidence": "Not enough evidence"}
MARK = {"pass": "✓", "fail": "✗", "not_enough_evidence": "?"}
UNKNOWN = "What it forgot is not known: no likelihoods of this model were measured"
MEANING = {
    "accuracy": "the answer names the right label",
    "exact_match": "the answer is the right one, character by character",
    "valid_output": "the answer has the form that was asked for, right or wrong",
    "token_f1": "how many words the answer shares with the right one",
    "chrf": "how many short runs of characters the answer shares with the right one",
    "macro_f1": "the mean of F1 over labels, rare ones count as much as frequent ones",
}


def by_name(report: Report) -> dict[str, Mapping[str, Any]]:
    """Return the candidates by name."""
    return {candidate["name"]: candidate for candidate in report.get("candidates", ())}


def subject(report: Report) -> str | None:
    """Return the name of the candidate on trial, or None if there is none."""
    name = report.get("subject") or TUNED
    return name if name in by_name(report) else None


def title_of(report: Report, name: str | None) -> str:
    """Return how a reader calls a candidate."""
    short = {BASE: "base model", TUNED: "tuned model"}
    found = by_name(report).get(name or "")
    return str(found["title"]) if found else short.get(name or "", name or "other model")


def short_title(report: Report, name: str) -> str:
    """Return a candidate's title for a narrow place."""
    fixed = {BASE: "base model", FEW_SHOT: "base + examples", TUNED: "tuned model"}
    return fixed.get(name) or title_of(report, name)


def metric_name(name: str) -> str:
    """Return token_f1 as token f1."""
    return name.replace("_", " ")


def metrics_of(report: Report) -> list[str]:
    """Return every metric that any candidate has, the primary first."""
    names = dict.fromkeys(
        metric for c in report.get("candidates", ()) for metric in c.get("metrics", {})
    )
    primary = report.get("primary", {}).get("metric")
    return sorted(names, key=lambda name: name != primary)


def limits(report: Report) -> dict[tuple[str, str], float]:
    """Return the limits of criteria on differences, by (candidate, metric), where there are any."""
    found = {}
    for criterion in report.get("verdict", {}).get("criteria", ()):
        figures = criterion.get("figures") or {}
        if figures.get("than") and figures.get("metric") and figures.get("limit"):
            found[str(figures["than"]), str(figures["metric"])] = float(figures["limit"])
    return found


def is_share(report: Report, metric: str) -> bool:
    """Return whether all of a metric's figures are ratios, which read best in percent."""
    if not is_rate(metric):
        return False
    found = [c["metrics"][metric] for c in report["candidates"] if metric in c.get("metrics", {})]
    ends = [f.get(k) for f in found for k in ("estimate", "low", "high")]
    return all(0 <= v <= 1 for v in ends if v is not None)


def amount(value: float | None, share: bool = True, digits: int = 0) -> str:
    """Return a score as people read it; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return percent(value, digits) if share else figure(value)


def change(value: float | None, share: bool = True, digits: int = 0) -> str:
    """Return a difference with its sign: in points for ratios, else in the metric's unit."""
    if value is None or not math.isfinite(value):
        return "–"
    if share:
        return points(value, digits)
    text = figure(abs(value))
    return text if text == "0" else f"{'−' if value < 0 else '+'}{text}"


def axis_text(value: float, share: bool = True) -> str:
    """Return a difference as it stands at an axis: 0, +2.5, −40."""
    if not share:
        return change(value, False)
    return points(value, 1).removesuffix(".0") if round(value, 6) else "0"


def between(low: float | None, high: float | None, share: bool = True) -> str:
    """Return an interval in words."""
    if low is None or high is None:
        return "–"
    if share:
        return f"{low * 100:.0f} to {high * 100:.0f}"
    return f"{figure(low)} to {figure(high)}"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def rows(count: int, what: str = "row") -> str:
    """Return 1 row, 12 rows."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def with_interval(report: Report, metric: str, figures: Mapping[str, Any] | None) -> str:
    """Return a metric's estimate with its interval behind it, as a table's cell has them."""
    if not figures or figures.get("estimate") is None:
        return "–"
    share = is_share(report, metric)
    ends = between(figures.get("low"), figures.get("high"), share)
    return f"{amount(figures['estimate'], share)} ({ends})"
