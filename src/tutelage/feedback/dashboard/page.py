"""The dashboard as one self-contained page. It reads board.py's document and decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tutelage.core import html
from tutelage.core.html import Html, figure
from tutelage.core.html_time import Axis, Mark, Moment, time_chart
from tutelage.feedback.dashboard.stretches import LENGTHS

Document = Mapping[str, Any]
Read = Callable[[Mapping[str, Any]], Mapping[str, Any] | float | None]
_NBSP = "\u00a0"
_MARKS = 40  # changes that are drawn


def as_html(found: Document) -> str:
    """Return the page."""
    since, until = (found[end][:16].replace("T", " ") for end in ("since", "until"))
    parts = [_verdict(found), _figures(found), *_charts(found), _changes(found), _table(found)]
    return html.page(
        f"{found['deployment']} over time",
        [part for part in parts if part],
        subtitle=f"{since} to {until} UTC, a point every {found['every']}",
        footer="`tutelage dashboard --html PAGE` writes it anew. To compare two releases that "
        "serve side by side, use `tutelage ab report`.",
    )


def _verdict(found: Document) -> Html:
    return html.verdict("note", found["sentence"], *found["notes"])


def _figures(found: Document) -> Html | None:
    ones = found["releases"]
    if not ones:
        return None
    one, total = ones[0], sum(r["requests"] for r in ones)
    cost = [r["cost"] for r in ones if r["cost"] is not None]
    money = f"{figure(round(sum(cost), 2))} {found['currency']}" if cost else "–"
    return html.stats(
        [
            ("requests", f"{total:,}", f"{len(ones)} releases" if len(ones) > 1 else one["name"]),
            ("users' verdict", _amount(one["feedback"], "{:.2f}"), _of(one["feedback"], one)),
            ("failed", _amount(one["failed"], "{:.1%}"), one["name"]),
            ("95 % faster than", _amount(one["latency_p95_ms"], "{:,.0f} ms"), one["name"]),
            ("cost", money, "all releases"),
        ]
    )


def _of(told: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    return f"{told['n']:,} answers of {one['name']}"


def _amount(told: Mapping[str, Any], form: str) -> str:
    return "–" if told["value"] is None else form.format(told["value"]).replace(" ", _NBSP)


def _charts(found: Document) -> list[Html]:
    """Return the charts that have something to show, quality first."""
    percent, money = "{:.3g} %", f"{{:.3g}} {found['currency']}"
    drawn = [
        _chart(found, "What users think", _part("feedback"), "{:.2f}",
               "What users said and did about each answer, from 0 (bad) to 1 (good)."),
        *(_signal(found, signal) for signal in found["signals"]),
        *(_chart(found, f"Live evaluation: {name}", _score(name), "{:.2f}",
                 "The mean of the answers that were drawn for scoring.")
          for name in _scores(found)),
        _chart(found, "Failed requests", _percent("failed"), percent, "Errors of the server."),
        _chart(found, "Flagged answers", _percent("flagged"), percent,
               "Answers that a check objected to."),
        _chart(found, "Time of an answer", _part("latency_p50_ms"), "{:,.0f} ms",
               "Half of the answers took less."),
        _chart(found, "Time of the slow ones", _part("latency_p95_ms"), "{:,.0f} ms",
               "19 of 20 answers took less."),
        _chart(found, "Time until the first token", _part("first_token_p50_ms"), "{:,.0f} ms",
               "Half of the streams began sooner."),
        _chart(found, "Cost of a request", lambda p: p["cost_per_request"], money,
               "At the prices of tutelage.yaml."),
        _chart(found, "Requests", lambda p: {"value": float(p["requests"]), "n": None}, "{:,.0f}",
               f"Per {found['every']}."),
    ]  # fmt: skip
    return [chart for chart in drawn if chart is not None]


def _signal(found: Document, signal: Mapping[str, Any]) -> Html | None:
    name = signal["name"]
    word = {1: "More is better.", -1: "Less is better.", 0: ""}[signal["better"]]
    is_share = signal["kind"] in ("flag", "text")
    factor, form = (100.0, "{:.3g} %") if is_share else (1.0, "{:.3g}")

    def read(point: Mapping[str, Any]) -> Mapping[str, Any]:
        return _times(point["signals"][name], factor)

    return _chart(found, f"Signal: {name}", read, form, f"{signal['says']}. {word}".strip())


def _scores(found: Document) -> list[str]:
    return sorted({name for point in found["points"] for name in point["scores"]})


def _score(name: str) -> Read:
    return lambda point: point["scores"].get(name)


def _part(name: str) -> Read:
    return lambda point: point[name]


def _percent(name: str) -> Read:
    return lambda point: _times(point[name], 100.0)


def _times(told: Mapping[str, Any], factor: float) -> dict[str, Any]:
    value = told["value"]
    return {"value": None if value is None else value * factor, "n": told["n"]}


def _chart(found: Document, heading: str, read: Read, form: str, lead: str) -> Html | None:
    series = {}
    for release in found["releases"]:
        line = _line(found, release["id"], read, form)
        if release["drawn"] and any(m.value is not None for m in line):
            series[release["name"]] = line
    if not any(m.value for line in series.values() for m in line):
        return None  # nothing but zeros: the table says so
    ends = tuple(datetime.fromisoformat(found[end]).timestamp() for end in ("since", "until"))
    drawn = time_chart(
        series,
        label=heading,
        marks=_marks(found),
        axis=Axis((ends[0], ends[1]), form.format, 0.0),
    )
    return html.section(heading, drawn, lead=lead)


def _line(found: Document, release: str, read: Read, form: str) -> list[Moment]:
    """Return a release's moments; a stretch without a value between two with one is a gap."""
    length = LENGTHS[found["every"]]
    moments: list[Moment] = []
    for point in (p for p in found["points"] if p["release"] == release):
        told = read(point)
        if not isinstance(told, Mapping):
            told = {"value": told, "n": point["requests"]}
        at = datetime.fromisoformat(point["at"]).timestamp() + length / 2
        if moments and at - moments[-1].at > 1.5 * length:
            moments.append(Moment(at - length, None))
        count = told["n"]  # None: the value is a count itself
        faint = count is not None and count < found["least"]
        note = "" if count is None else f" (n = {count:,})"
        moments.append(Moment(at, told["value"], faint, note))
    return moments


def _marks(found: Document) -> list[Mark]:
    return [
        Mark(datetime.fromisoformat(c["at"]).timestamp(), c["number"], f"{c['text']}: {c['why']}")
        for c in found["changes"][-_MARKS:]
    ]


def _changes(found: Document) -> Html | None:
    rows = [
        (c["number"], c["at"][:16].replace("T", " "), c["text"], c["strategy"], c["why"])
        for c in found["changes"]
    ]
    if not rows:
        return None
    return html.section(
        "What was changed",
        html.table(("", "when (UTC)", "what", "how", "why"), rows[-_MARKS:]),
        lead="The numbered lines of the charts.",
    )


def _table(found: Document) -> Html | None:
    if not found["releases"]:
        return None
    headers = ["release", "requests", "failed", "flagged", "verdict", "p50", "p95", "a request"]
    rows = []
    for one in found["releases"]:
        cost = one["cost_per_request"]
        rows.append(
            [
                f"{one['name']}{' (serves)' if one['serves'] else ''}", one["requests"],
                _between(one["failed"], 100, "%"), _between(one["flagged"], 100, "%"),
                _between(one["feedback"], 1, ""), _amount(one["latency_p50_ms"], "{:,.0f} ms"),
                _amount(one["latency_p95_ms"], "{:,.0f} ms"),
                "–" if cost is None else f"{cost:.3g} {found['currency']}",
            ]
        )  # fmt: skip
    lead = (
        "All of the time shown. In brackets the 95 % interval of one look. Releases that served at "
        "different times met different requests: the table does not say which is better."
    )
    return html.section("Release by release", html.table(headers, rows), _told(found), lead=lead)


def _told(found: Document) -> Html:
    """Return the table of signals, where there are any."""
    names: Sequence[str] = [signal["name"] for signal in found["signals"]]
    if not names:
        return Html("")
    shares = {s["name"]: s["kind"] in ("flag", "text") for s in found["signals"]}
    rows = []
    for one in found["releases"]:
        cells = []
        for name in names:
            factor, unit = (100, "%") if shares[name] else (1, "")
            cells.append(_between(one["signals"][name], factor, unit))
        rows.append([one["name"], *cells])
    return html.join([Html("<h3>Signals</h3>"), html.table(["release", *names], rows)])


def _between(told: Mapping[str, Any], factor: float, unit: str) -> str:
    if told["value"] is None:
        return "–"
    value = f"{told['value'] * factor:.3g}{_NBSP + unit if unit else ''}"
    if told["low"] is None:
        return f"{value} (n = {told['n']:,})"
    return f"{value} ({told['low'] * factor:.3g} to {told['high'] * factor:.3g})"
