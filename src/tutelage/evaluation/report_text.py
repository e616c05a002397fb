"""The evaluation for a terminal: tables and sentences as plain data, drawn by the CLI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.evaluation.candidates import TUNED
from tutelage.evaluation.criterion import points
from tutelage.evaluation.report_verdict import next_steps
from tutelage.evaluation.report_words import MARK, UNKNOWN, amount, is_share, metrics_of


def score_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return (headers, rows): each candidate's scores with the primary's interval, and its cost."""
    primary = report["primary"]["metric"]
    metrics = metrics_of(report)
    beside = [metric for metric in metrics if metric != primary]
    share = {metric: is_share(report, metric) for metric in [primary, *beside]}
    headers = ["candidate", primary, "interval", *beside, "ms/answer p50", "p95", "tokens"]
    rows = []
    for candidate in report["candidates"]:
        found, cost = candidate.get("metrics", {}), candidate.get("usage") or {}
        score = found.get(primary, {})
        ends = (amount(score.get(end), share[primary]) for end in ("low", "high"))
        rows.append(
            [
                candidate["title"],
                amount(score.get("estimate"), share[primary]),
                "–".join(ends) if score.get("low") is not None else "–",
                *(amount(found.get(m, {}).get("estimate"), share[m]) for m in beside),
                *(_figure(cost.get(key), 0) for key in ("p50_ms", "p95_ms")),
                _figure(cost.get("completion_tokens"), 1),
            ]
        )
    return headers, rows


def lines(report: Mapping[str, Any]) -> list[str]:
    """Return the verdict, a line a criterion, what was forgotten, and the notes."""
    verdict = report["verdict"]
    found = [verdict["sentence"]]
    found += [f"{MARK[c['outcome']]} {c['sentence']}" for c in verdict["criteria"]]
    forgetting = report["forgetting"]
    if forgetting:
        found += [forgotten(forgetting), *moved(forgetting)]
    elif any(candidate["name"] == TUNED for candidate in report["candidates"]):
        found.append(UNKNOWN[0].lower() + UNKNOWN[1:])
    counts = report["changed"]["counts"]
    if report["changed"]["against"]:
        found.append(
            f"rows: {counts['fixed']} fixed, {counts['broken']} broken, "
            f"{counts['both_wrong']} wrong before and after"
        )
    return found + [f"note: {note}" for note in report["notes"]]


def forgotten(forgetting: Mapping[str, Any]) -> str:
    """Return one sentence that says what was forgotten and what was learnt by the way."""
    lost, gained = forgetting["lost"], forgetting["gained"]
    drop = forgetting["accuracy_drop"]
    change = points(-drop["estimate"], 1)
    head = f"it forgot {len(lost)} of {drop['n']} general questions and gained {len(gained)}"
    return f"{head} ({change} points, {points(-drop['high'], 1)}…{points(-drop['low'], 1)})"


def moved(forgetting: Mapping[str, Any]) -> list[str]:
    """Return how far the model moved on general texts, and the topics that surely changed."""
    found = []
    kl = forgetting.get("kl")
    if kl:
        found.append(
            f"KL divergence from the base: {kl['estimate']:.4f} nats a token of general text "
            f"({max(0.0, kl['low']):.4f}…{kl['high']:.4f})"
        )
    sure = [topic for topic in forgetting.get("topics", ()) if topic["sure"]]
    if sure:
        listed = ", ".join(f"{t['topic']} {points(-t['drop'], 1)} points" for t in sure)
        found.append(f"topics whose chance of the right answer surely changed: {listed}")
    return found


def as_text(report: Mapping[str, Any]) -> str:
    """Return the whole summary as aligned text, for report.txt and logs."""
    headers, rows = score_table(report)
    widths = [max(len(str(row[i])) for row in [headers, *rows]) for i in range(len(headers))]
    table = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [headers, *rows]
    ]
    steps = [f"next: {step}" for step in next_steps(report)]
    return "\n".join([*lines(report), "", *table, "", *steps]) + "\n"


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
