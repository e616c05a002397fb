"""An A/B analysis as one self-contained page. It reads the document of report.py and decides
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tutelage.core import html
from tutelage.core.html import Html, Tone
from tutelage.core.html_strips import Line, chart, interval, scale_over
from tutelage.core.html_time import Band, Moment, time_chart

_TONES: dict[str, Tone] = {
    "better": "good", "worse": "bad", "same": "note", "mixed": "warn", "broken": "bad",
    "not_enough_evidence": "warn", "no_data": "note",
}  # fmt: skip
_BADGES: dict[str, tuple[Tone, str]] = {
    "better": ("good", "better"), "worse": ("bad", "worse"), "higher": ("note", "higher"),
    "lower": ("note", "lower"), "same": ("note", "same"), "open": ("warn", "open"),
    "no_data": ("note", "no data"),
}  # fmt: skip
_ROOM = 3.0  # of the last interval's width, above and below, that the chart over time shows
Document = Mapping[str, Any]


def as_html(found: Document) -> str:
    """Return the page."""
    began, until = found["began"][:16].replace("T", " "), found["until"][:16].replace("T", " ")
    parts = [_verdict(found), _figures(found), _over_time(found), _metrics(found), _split(found)]
    return html.page(
        f"{found['candidate']} against {found['stable']}",
        [part for part in parts if part],
        subtitle=f"A/B test of {found['deployment']}, {began} to {until} UTC, {_state(found)}",
        footer=f"Rollout {found['rollout']}. `tutelage ab report --html PAGE` writes it anew.",
    )


def _state(found: Document) -> str:
    why = f": {found['why']}" if found["why"] else ""
    return f"{found['state'].replace('_', ' ')}{why}"


def _verdict(found: Document) -> Html:
    return html.verdict(_TONES[found["verdict"]], found["sentence"], *found["needed"])


def _figures(found: Document) -> Html:
    fell, shown = found["balance"], found["primary"]["shown"]
    users, asked = fell["users"], fell["requests"]
    hint = f"{asked['stable']:,} and {asked['candidate']:,} requests"
    return html.stats(
        [
            ("users", f"{users['stable']:,} + {users['candidate']:,}", hint),
            (f"{found['primary']['name']}, stable", shown["stable"], found["stable"]),
            (f"{found['primary']['name']}, candidate", shown["candidate"], found["candidate"]),
            ("difference", shown["difference"], shown["interval"]),
        ]
    )


def _over_time(found: Document) -> Html | None:
    path = found["path"]
    if len(path) < 2:
        return None
    points = [Moment(_time(p), p["difference"]) for p in path]
    last = path[-1]
    room = _ROOM * (last["high"] - last["low"])  # the first intervals are as wide as the world
    low, high = last["difference"] - room, last["difference"] + room
    band = Band(tuple((_time(p), max(p["low"], low), min(p["high"], high)) for p in path))
    sure = 1 - found["primary"]["alpha"]
    drawn = time_chart(
        {found["primary"]["name"]: points}, band=band, reference=0.0, label="difference"
    )
    lead = (
        f"Candidate minus stable by {found['primary']['name']}. The band holds the true difference "
        f"at every moment at once with {sure:.1%}, however often you look."
    )
    return html.section("The difference over time", drawn, lead=lead)


def _time(look: Document) -> float:
    return datetime.fromisoformat(look["at"]).timestamp()


def _metrics(found: Document) -> Html:
    rows = []
    for one in [found["primary"], *found["metrics"]]:
        tone, word = _BADGES[one["outcome"]]
        shown = one["shown"]
        name = html.join(
            [
                html.esc(one["name"]),
                Html("<br>"),
                Html(f"<span class='soft'>{html.esc(one['says'])}</span>"),
            ]
        )
        figures = (shown["stable"], shown["candidate"], shown["difference"], shown["interval"])
        rows.append((name, html.badge(tone, word), *figures))
    headers = ("metric", "", "stable", "candidate", "difference", "interval")
    lead = (
        "The first metric decides. Each interval allows for all the others: of everything said "
        f"here, at any look, something is wrong in at most {found['asked']['alpha']:.0%} of tests."
    )
    all_of_them = html.join([Html("<h3>In figures</h3>"), html.table(headers, rows)])
    return html.section("By each metric", _strips(found), all_of_them, lead=lead)


def _strips(found: Document) -> Html:
    """Return the intervals of the shares and scores, which have one scale."""
    ones = [found["primary"], *found["metrics"]]
    drawn = [o for o in ones if o["form"] in ("share", "score") and o["low"] is not None]
    if not drawn:
        return Html("")
    values = [v for o in drawn for v in (o["low"], o["high"])]
    scale = scale_over(values, text=_points, references=(0.0,))
    lines = []
    for one in drawn:
        tone = {"better": "good", "worse": "bad"}.get(one["outcome"], 5)
        marks = interval(scale, one["low"], one["difference"], one["high"], tone)
        lines.append(Line((one["name"], one["shown"]["difference"]), marks, one is ones[0]))
    return chart("differences in points", ("metric", "difference"), lines, scale)


def _split(found: Document) -> Html:
    told = found["balance"]
    word = ("bad", "broken") if told["broken"] else ("good", "as asked")
    notes = [html.paragraph(note) for note in found["caveats"]]
    tone: Tone = "bad" if told["broken"] else "good"
    return html.section(
        "Can it be trusted?",
        html.join([html.badge(tone, word[1]), html.paragraph(f"The split: {told['sentence']}.")]),
        *notes,
    )


def _points(value: float) -> str:
    return f"{value * 100:+.3g}".replace("-", "−") if value else "0"
