"""A report about drift as a page: the answer first, then the watch, topics, figures, segments.

Built from a kept or a fresh report as plain data (DriftReport.as_dict); it decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core import html
from tutelage.core.html_strips import Line, Scale, bar, chart, interval, limit, scale_over, shares
from tutelage.feedback.drift.words import percent

Data = Mapping[str, Any]
_TONES: dict[str, html.Tone] = {"moved": "bad", "as_before": "good", "too_few": "note"}
_HEADS = {
    "moved": "Traffic has moved",
    "as_before": "Traffic is as before",
    "too_few": "Too little traffic to say",
}
_NAMES = {
    "mmd": "kernel two-sample test",
    "auc": "classifier two-sample test",
    "psi": "stability index",
    "topic": "shares of topics",
    "rank": "rank test",
    "watch": "the watch, over all the time it has looked",
}


def page(report: Data, *, project: str, standing: Data | None = None) -> str:
    """Return the whole page of a report; `standing` is where the watch stands."""
    return html.page(
        f"{project}: drift",
        sections(report, standing),
        subtitle=f"{report['recent']['what']}, against {report['reference']['what']}",
        footer=f"One comparison errs with a chance of {report['level']:.0%} over all its tests.",
    )


def sections(report: Data, standing: Data | None = None) -> list[html.Html]:
    """Return the cards of the page."""
    parts = report["parts"]
    return [
        html.verdict(_TONES[report["verdict"]], _HEADS[report["verdict"]], report["sentence"]),
        *([watch_section(standing)] if standing and standing["series"] else []),
        *_examples(parts),
        *_topics(parts),
        *_lengths(parts),
        *_labels(parts),
        *_tests(parts),
    ]


def watch_section(standing: Data) -> html.Html:
    """Return the card of the watch: what each series shows, beside what raises the alarm."""
    alarm = standing["false_alarms"]
    top = max(5.0, *(_digits(one["p"]) for one in standing["series"]))
    scale = Scale(tuple(top * k / 5 for k in range(6)), lambda v: f"{10**-v:.1g}")
    lines = [
        Line(
            (one["series"], f"{one['p']:.2g}", f"{one['looks']:,}", (one["since"] or "")[:16]),
            [
                *bar(scale, _digits(one["p"]), "bad" if one["p"] <= alarm else 0),
                *limit(scale, _digits(alarm)),
            ],
        )
        for one in standing["series"]
    ]
    drawn = chart(
        "evidence of the watch",
        ("series", "chance", "looks", "since"),
        lines,
        scale,
    )
    lead = (
        f"{standing['looked_at']:,} requests looked at since {str(standing['since'])[:16]}, held "
        f"against {standing['reference']}. The chance is that of so much while nothing changes; a "
        "bar that reaches the dashed line raises the alarm, which happens wrongly, ever, with a "
        f"chance of {alarm:.0%} at most."
    )
    return html.section("The watch", drawn, lead=lead)


def _digits(p: float) -> float:
    """Return how many zeros a chance has, at most 12."""
    return min(12.0, -math.log10(max(p, 1e-12)))


def _examples(parts: Sequence[Data]) -> list[html.Html]:
    found = {e["record"]: e.get("text", "") for part in parts for e in part["examples"]}
    quotes = [html.quote(text[:400]) for text in found.values() if text]
    if not quotes:
        return []
    lead = "Requests from where the change is largest."
    return [html.section("For example", *quotes[:8], lead=lead)]


def _topics(parts: Sequence[Data]) -> list[html.Html]:
    topics = [topic for part in parts for topic in part["figures"].get("topics", [])]
    if not topics:
        return []
    scale = shares()
    lines = [
        Line(
            (
                ", ".join(topic["about"]) or "none of these",
                percent(topic["reference"]),
                percent(topic["recent"]),
            ),
            _pair(scale, topic["reference"], topic["recent"]),
            strong=topic["moved"],
        )
        for topic in topics
    ]
    drawn = chart("shares of topics", ("about", "before", "now"), lines, scale)
    lead = "Requests of both sides sorted into topics by their words. Grey is before, blue is now."
    return [html.section("What is asked about", drawn, lead=lead)]


def _lengths(parts: Sequence[Data]) -> list[html.Html]:
    found = [part for part in parts if "quantiles" in part["figures"]]
    if not found:
        return []
    ends = [v for p in found for side in ("reference", "recent") for v in p["figures"][side]]
    scale = scale_over([0.0, *ends])
    lines = []
    for part in found:
        name = _named(part)
        for side, word, colour in (("reference", "before", 5), ("recent", "now", 0)):
            low, _, middle, _, high = part["figures"][side]
            cells = (f"{name}, {word}", f"{middle:,.0f}", f"{low:,.0f} to {high:,.0f}")
            strong = part["moved"] and side == "recent"
            lines.append(Line(cells, interval(scale, low, middle, high, colour), strong=strong))
    drawn = chart("lengths", ("length", "median", "80% of them"), lines, scale)
    return [html.section("Lengths in characters", drawn)]


def _labels(parts: Sequence[Data]) -> list[html.Html]:
    cards = []
    for part in parts:
        if part["segment"] is not None or "labels" not in part["figures"]:
            continue
        scale = shares()
        lines = [
            Line(
                (one["label"], percent(one["reference"]), percent(one["recent"])),
                _pair(scale, one["reference"], one["recent"]),
            )
            for one in part["figures"]["labels"]
        ]
        drawn = chart("shares of labels", ("label", "before", "now"), lines, scale)
        lead = "The labels whose shares changed most. Grey is before, blue is now."
        cards.append(html.section("Labels of answers", drawn, lead=lead))
    return cards


def _pair(scale: Scale, before: float, now: float) -> list[str]:
    return [*bar(scale, before, 5, thick=18), *bar(scale, now, 0, thick=8)]


def _tests(parts: Sequence[Data]) -> list[html.Html]:
    rows = [
        (
            _named(part),
            _NAMES[part["test"]],
            f"{part['statistic']:.3g}",
            f"{part['corrected']:.2g}",
            html.badge("bad", "moved") if part["moved"] else "",
        )
        for part in parts
    ]
    table = html.table(("what", "test", "statistic", "p over all tests", ""), rows)
    return [html.details("Every test", table)] if rows else []


def _named(part: Data) -> str:
    return f"{part['name']}, {part['segment']}" if part["segment"] else str(part["name"])
