"""The evaluation for a terminal: tables and sentences as plain data, drawn by the CLI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.evaluation.candidates import TUNED
from tutelage.evaluation.gate import percent, points

_MARK = {"pass": "✓", "fail": "✗", "not_enough_evidence": "?"}


def score_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return (headers, rows): each candidate's primary score, interval, cost."""
    metric = report["primary"]["metric"]
    beside = [m for m in report["candidates"][0]["metrics"] if m != metric]
    headers = ["candidate", metric, "interval", *beside, "ms/answer p50", "p95", "tokens"]
    rows = []
    for candidate in report["candidates"]:
        score = candidate["metrics"][metric]
        cost = candidate["usage"]
        rows.append(
            [
                candidate["title"],
                _percent(score["estimate"]),
                f"{_percent(score['low'])}–{_percent(score['high'])}",
                *(_percent(candidate["metrics"].get(m, {}).get("estimate")) for m in beside),
                f"{cost['p50_ms']:.0f}" if cost else "–",
                f"{cost['p95_ms']:.0f}" if cost else "–",
                f"{cost['completion_tokens']:.1f}" if cost else "–",
            ]
        )
    return headers, rows


def lines(report: Mapping[str, Any]) -> list[str]:
    """Return the verdict, a line a criterion, what was forgotten, and the notes."""
    verdict = report["verdict"]
    found = [verdict["sentence"]]
    found += [f"{_MARK[c['outcome']]} {c['sentence']}" for c in verdict["criteria"]]
    forgetting = report["forgetting"]
    if forgetting:
        found += [forgotten(forgetting), *moved(forgetting)]
    elif any(candidate["name"] == TUNED for candidate in report["candidates"]):
        found.append("what it forgot is not known: no likelihoods of this model were measured")
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
    return "\n".join([*lines(report), "", *table]) + "\n"


def _percent(value: float | None) -> str:
    return "–" if value is None else percent(value)
