"""The figures of one evaluation: who scores what, is the difference real, what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from tutelage.evaluation.report_words import (
    Report,
    by_name,
    change,
    is_share,
    metric_name,
    metrics_of,
    subject,
    title_of,
    with_interval,
)
from tutelage.web.parts import chart, layout, words
from tutelage.web.parts.cells import Cell, cell_table


def scores(report: Report) -> None:
    """Draw the primary metric of every candidate with its interval, and all metrics as a table."""
    metrics = metrics_of(report)
    if not metrics:
        return
    primary, share = metrics[0], is_share(report, metrics[0])
    with layout.card(f"Who scores what: {metric_name(primary)}"):
        lines = []
        for candidate in report["candidates"]:
            figures = candidate["metrics"].get(primary)
            if figures and figures.get("estimate") is not None:
                lines.append(interval(candidate["title"], figures))
        chart.intervals(
            lines, name=f"{metric_name(primary)} of every candidate with its interval",
            percent=share, **whole_scale(share),
        )  # fmt: skip
        headers = ["Candidate", *(words.capital(metric_name(metric)) for metric in metrics)]
        rows: list[list[Cell]] = [
            [c["title"], *(with_interval(report, m, c["metrics"].get(m)) for m in metrics)]
            for c in report["candidates"]
        ]
        cell_table(headers, rows, name="Every metric of every candidate", whole=True)


def differences(report: Report) -> None:
    """Draw the candidate on trial minus every other: gain, interval, p, what it says."""
    found = [c for c in report.get("comparisons", ()) if c.get("estimate") is not None]
    if not found:
        return
    primary = report["primary"]["metric"]
    with layout.card("Is the difference real?"):
        ui.label(
            f"The {title_of(report, subject(report))} minus each other candidate, on the same "
            "rows. An interval that holds 0 may be luck."
        ).classes("text-sm")
        mine = [c for c in found if c.get("metric", primary) == primary]
        chart.intervals(
            [interval(f"against {_other(report, c)}", c) for c in mine],
            name=f"differences in {metric_name(primary)} with their intervals",
            percent=is_share(report, primary), mark=0.0,
        )  # fmt: skip
        headers = ("Against", "Metric", "Gain", "Interval", "Better / worse rows", "p", "Reading")
        rows = [_difference(report, c, c.get("metric", primary)) for c in found]
        cell_table(headers, rows, name="Differences")


def beside(report: Report) -> None:
    """Draw what it forgot, how long an answer takes, and how it was measured, as plain facts."""
    facts = [*_forgotten(report), *_time(report), *_method(report)]
    with layout.card("How this was measured"):
        layout.facts(facts)


def whole_scale(share: bool) -> dict[str, float]:
    """Return the ends of a plot's scale: 0 and 1 of shares, else where the values end."""
    return {"low": 0.0, "high": 1.0} if share else {}


def interval(name: str, figures: Mapping[str, Any]) -> chart.Interval:
    """Return a figure as the plots take it; without an interval it is a point."""
    low, middle, high = _ends(figures)
    return chart.Interval(name, middle, low, high)


def _ends(figures: Mapping[str, Any]) -> tuple[float, float, float]:
    middle = float(figures["estimate"])
    low, high = figures.get("low"), figures.get("high")
    return (middle if low is None else low), middle, (middle if high is None else high)


def _other(report: Report, comparison: Mapping[str, Any]) -> str:
    return str(comparison.get("title") or title_of(report, comparison.get("other")))


def _difference(report: Report, found: Mapping[str, Any], metric: str) -> Sequence[Cell]:
    share, (low, middle, high) = is_share(report, metric), _ends(found)
    kind: layout.Kind = "good" if low > 0 else "bad" if high < 0 else "warn"
    word = {"good": "better", "bad": "worse"}.get(kind, "open")
    p = found.get("p_holm")
    shown = "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
    return [
        _other(report, found),
        metric_name(metric),
        change(middle, share),
        f"{change(low, share)} to {change(high, share)}",
        f"{found.get('wins', '–')} / {found.get('losses', '–')}",
        shown,
        lambda: layout.chip(word, kind),
    ]


def _forgotten(report: Report) -> list[tuple[str, str]]:
    found = report.get("forgetting")
    if not found:
        return []
    n = found["accuracy_drop"]["n"]
    before = round(found["base_accuracy"]["estimate"] * n)
    after = round(found["tuned_accuracy"]["estimate"] * n)
    return [("General questions right", f"{after} of {n}, {before} before tuning")]


def _time(report: Report) -> list[tuple[str, str]]:
    usage = by_name(report).get(subject(report) or "", {}).get("usage")
    if not usage or usage.get("p50_ms") is None:
        return []
    return [("An answer takes", f"{usage['p50_ms']:,.0f} ms, the median in this test")]


def _method(report: Report) -> list[tuple[str, str]]:
    method = report.get("method") or {}
    made = "; ".join(f"{k} {v}" for k, v in (report.get("lineage") or {}).items() if v)
    clusters = report.get("clusters", report["rows"])
    facts = [
        ("Rows", f"{report['rows']:,} frozen test rows in {clusters:,} clusters"),
        ("Confidence", f"{report['primary'].get('confidence', 0.95) * 100:g} %"),
        ("Longest answer", f"{method.get('max_new_tokens', '–')} tokens"),
        ("Made from", made),
    ]
    return [(name, text) for name, text in facts if text]
