"""What a verdict means and what to do next, in sentences for someone who did not run it.

It decides nothing: it reads the report's verdict, its criteria and their figures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tutelage.evaluation.report_words import (
    Report,
    amount,
    by_name,
    change,
    is_share,
    metric_name,
    rows,
    subject,
    title_of,
)

_TOLD = re.compile(r"about ([\d,]+) rows would")  # what the criterion says itself
_WORTH_SEEING = 0.05  # the difference that most people ask for, a ratio


def meaning(report: Report) -> list[str]:
    """Return one to three sentences: how much better, how sure, at what price."""
    primary, ours = report.get("primary", {}), subject(report)
    found: list[str] = []
    if ours and primary.get("difference") is not None:
        found.append(_gain(report, primary, ours))
    forgetting = report.get("forgetting")
    if forgetting:
        found.append(_forgot(forgetting))
    return found


def _gain(report: Report, primary: Mapping[str, Any], ours: str) -> str:
    metric, against = primary["metric"], primary["against"]
    share = is_share(report, metric)
    candidates = by_name(report)
    values = [
        candidates[name]["metrics"][metric]["estimate"] if name in candidates else primary.get(name)
        for name in (ours, against)
    ]
    low, high = primary["difference_low"], primary["difference_high"]
    unit = " points" if share else ""
    sure = f"{primary.get('confidence', 0.95) * 100:g} % confidence"
    return (
        f"{metric_name(metric).capitalize()}: {amount(values[0], share)} for the "
        f"{title_of(report, ours)}, {amount(values[1], share)} for the "
        f"{title_of(report, against)}. That is {change(primary['difference'], share)}{unit} on "
        f"these {rows(report['rows'])}; with {sure} the true difference lies between "
        f"{change(low, share)} and {change(high, share)}{unit}."
    )


def _forgot(found: Mapping[str, Any]) -> str:
    n = found["accuracy_drop"]["n"]
    before = round(found["base_accuracy"]["estimate"] * n)
    after = round(found["tuned_accuracy"]["estimate"] * n)
    return f"Of {n} general questions it answers {after} right, {before} before tuning."


def next_steps(report: Report) -> list[str]:
    """Return what to do now, most useful first. Commands stand in back quotes."""
    outcome = report["verdict"]["outcome"]
    if subject(report) is None:
        return ["Train: `tutelage train`, then `tutelage evaluate` again."]
    if outcome == "pass":
        return _after_pass(report)
    open_ones = [c for c in report["verdict"]["criteria"] if c["outcome"] == outcome]
    steps = [step for c in open_ones if (step := _step(c, outcome))]
    if outcome == "fail" and report.get("changed", {}).get("counts", {}).get("broken"):
        steps.append(
            f"Read {_these(report['changed']['counts']['broken'])} that tuning broke (Row by row): "
            "often there is one cause, such as a wrong label or a class with few rows."
        )
    if outcome == "not_enough_evidence":
        steps.append(
            "Until then keep what you serve now. `tutelage release create --force` releases "
            "anyway, and the release keeps this report."
        )
    return list(dict.fromkeys(steps))


def _after_pass(report: Report) -> list[str]:
    steps = [
        "Release it: `tutelage release create`.",
        "Let a few requests try it first: `tutelage rollout start RELEASE` raises its traffic step "
        "by step and takes it back by itself if live figures get worse.",
    ]
    counts = report.get("changed", {}).get("counts", {})
    if counts.get("broken"):
        steps.insert(
            0,
            f"Look at {_these(counts['broken'])} that got worse (Row by row) before you release. "
            "What may never be wrong goes into `evaluate.must_pass`, by its id.",
        )
    return steps


def _these(count: int) -> str:
    return "the row" if count == 1 else f"the {count:,} rows"


def _step(criterion: Mapping[str, Any], outcome: str) -> str | None:
    """Return the advice for one criterion that fails or is open."""
    name, figures = criterion["name"], criterion.get("figures", {})
    if outcome == "not_enough_evidence":
        if name == "rows scored":
            return "Some answers have no score: see the notes, mend the cause, evaluate again."
        return more_rows(criterion)
    if name.startswith("better than"):
        return (
            "Tuning did not help enough. `tutelage data curve` tells whether more rows would, "
            "`tutelage data label-errors` which labels are in doubt."
        )
    if name.startswith("not worse"):
        return "For certain it loses more than the limit allows: keep what you serve now."
    if name.startswith("keeps"):
        return (
            "It forgets too much. Mix in more of the base model's own text (`train.replay`), or "
            "train for fewer epochs."
        )
    if name == "must-pass rows":
        failed = ", ".join(f"`{str(item)[:12]}`" for item in figures.get("failed", [])[:5])
        return f"Rows that must pass fail: {failed}. Add rows like them to the training data."
    if name == "answers in time":
        return (
            "It is slower than the limit allows: see Time of an answer, and shorten what it writes."
        )
    return f"Mend “{name}”: {criterion['sentence']}."


def more_rows(criterion: Mapping[str, Any]) -> str:
    """Return how much evidence would settle an open criterion, as far as its figures tell."""
    figures, name = criterion.get("figures", {}), criterion["name"]
    n = figures.get("n")
    if "limit" in figures:
        told = _TOLD.search(criterion["sentence"])
        needed = int(told[1].replace(",", "")) if told else rows_to_settle(figures)
        what = "general questions" if name.startswith("keeps") else "rows"
        wanted = (
            f"If the estimate holds, about {needed:,} {what} would settle it; there were {n:,}. "
            if needed and n
            else ""
        )
        return (
            f"“{name}” is open: its limit lies inside the interval. {wanted}Measure with more, or "
            "set a wider limit on purpose, before you look again."
        )
    wish = rows_to_see(figures)
    if wish is None:
        return f"“{name}” is open: add test rows."
    size, needed = wish
    return (
        f"“{name}”: you need about {needed:,} test rows to see {size * 100:.0f} points; there are "
        f"{n:,}. Have experts label more, or raise `data.splits.test`."
    )


def rows_to_see(figures: Mapping[str, Any]) -> tuple[float, int] | None:
    """Return (difference, rows that find it with 80 % power), from what this set can detect.

    The smallest detectable difference falls with the square root of the rows, so
    n' = n · (detectable / wanted)². Wanted is 5 points, or less where the rows see 5 already.
    """
    n, detectable = figures.get("n"), figures.get("detectable")
    if not n or not detectable or not math.isfinite(detectable):
        return None
    wanted = _WORTH_SEEING
    if detectable <= wanted:
        wanted = max(abs(figures.get("estimate") or 0.0), 0.01)
    if wanted >= detectable:
        return None
    return wanted, _rounded(n * (detectable / wanted) ** 2)


def rows_to_settle(figures: Mapping[str, Any]) -> int | None:
    """Return how many rows show with 80 % power that the estimate is off its limit, if it holds."""
    n, estimate, limit = (figures.get(k) for k in ("n", "estimate", "limit"))
    detectable = figures.get("detectable")
    if not n or not detectable or estimate is None or limit is None:
        return None
    gap = abs(estimate - limit)
    if gap * 30 < detectable:  # more than 900 times the rows: no honest number
        return None
    needed = math.ceil(n * (detectable / gap) ** 2)
    return needed if needed > n else None


def _rounded(count: float) -> int:
    """Round up to two figures: nobody needs 238 rows rather than 240."""
    step = int(10 ** max(0, math.floor(math.log10(max(count, 1))) - 1))
    return math.ceil(count / step) * step
