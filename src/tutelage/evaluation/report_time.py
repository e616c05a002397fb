"""The page's part on length, time and money of answers. It reads the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core import html
from tutelage.core.html import Html, figure
from tutelage.core.html_strips import (
    Line,
    bar,
    bins,
    chart,
    columns,
    dot,
    scale_over,
    span,
    tick,
    whisker,
)
from tutelage.evaluation.report_words import Report, between, subject

_GREY, _ACCENT = 5, 0
Timed = tuple[Mapping[str, Any], Mapping[str, Any]]  # (candidate, its figures)
_TIMES = (  # (prefix of the usage keys, heading, sentence)
    ("", "Whole answer", ""),
    ("first_token_", "First token", "How long a reader waits until something appears."),
    ("per_token_", "A token", "How fast the rest follows."),
)


def lengths(report: Report) -> Html | None:
    """Return how long the answers are, candidate by candidate."""
    written = [c for c in report["candidates"] if c.get("lengths")]
    if not written:
        return None
    values = [v for c in written for v in c["lengths"]]
    scale = scale_over([0.0, *_most(values)], whole=True)
    lines = []
    for c in written:
        found = sorted(c["lengths"])
        strong = c["name"] == subject(report)
        marks = columns(scale, bins(scale, found), _ACCENT if strong else _GREY)
        cut = (c.get("usage") or {}).get("cut")
        cells = (c["title"], *_quantiles(found), "–" if cut is None else cut)
        lines.append(Line(cells, marks, strong))
    headers = ["candidate", "median", "95 %", "longest", "cut at the limit"]
    limit = report.get("method", {}).get("max_new_tokens")
    bound = f" No answer may be longer than {limit} tokens." if limit else ""
    return html.section(
        "How long the answers are",
        chart("tokens of an answer", headers, lines, scale, tall=True),
        lead=f"Tokens an answer, a column the higher the more answers have that length.{bound}",
    )


def times(report: Report) -> Html | None:
    """Return the time of an answer: alone where that was measured, and in batches; tokens a row."""
    written = [(c, c["usage"]) for c in report["candidates"] if c.get("usage")]
    if not written:
        return None
    alone = [(c, u["alone"]) for c, u in written if u.get("alone")]
    at_once = report.get("method", {}).get("batch_size")
    body: list[object] = []
    if alone:
        count = max(found.get("rows", 0) for _, found in alone)
        body.append(Html("<h3>One request at a time: what a single user waits</h3>"))
        body.append(html.paragraph(f"Measured on {count} of the rows."))
        body += _ladders(report, alone, "h4")
        body.append(Html("<h3>In batches: what the machine gets through</h3>"))
    body += _ladders(report, written, "h4" if alone else "h3")
    body.append(_tokens(written))
    how = f", {at_once} at a time in batches" if at_once else ""
    return html.section(
        "Time of an answer",
        *body,
        lead=f"Half, 95 % and 99 % of answers came within these times on this machine{how}: the "
        "dot, the tall tick and the end of the line. Live traffic measures them again during a "
        "rollout.",
    )


def _ladders(report: Report, found: Sequence[Timed], level: str) -> list[object]:
    """Return a chart for the whole answer, the first token and a token, as far as measured."""
    body: list[object] = []
    for prefix, heading, note in _TIMES:
        drawn = _ladder(report, found, prefix, heading)
        if drawn:
            body.append(Html(f"<{level}>{heading}</{level}>"))
            body += [html.paragraph(note)] if note else []
            body.append(drawn)
    return body


def _ladder(report: Report, timed: Sequence[Timed], prefix: str, heading: str) -> Html | None:
    """Return 50th, 95th and 99th percentile as far as each is there; else the mean."""
    names = ["median", "95 %", "99 %"]
    found = [(c, [u.get(f"{prefix}{p}_ms") for p in ("p50", "p95", "p99")]) for c, u in timed]
    if all(given[0] is None for _, given in found):
        names = ["mean"]
        found = [(c, [u.get(f"{prefix}ms")]) for c, u in timed]
    lines_of = [(c, [float(v) for v in given if v is not None]) for c, given in found]
    lines_of = [(c, given) for c, given in lines_of if given]
    if not lines_of:
        return None
    scale = scale_over([0.0, *(v for _, given in lines_of for v in given)], text=_ms)
    wide = max(len(given) for _, given in lines_of)
    lines = []
    for c, given in lines_of:
        strong = c["name"] == subject(report)
        colour = _ACCENT if strong else _GREY
        marks = span(scale, given[0], given[-1], colour) if len(given) > 1 else []
        marks = [*marks, *dot(scale, given[0], colour, 11)]
        marks += tick(scale, given[1], colour) if len(given) > 2 else []
        cells = [c["title"], *map(_ms, given), *["–"] * (wide - len(given))]
        lines.append(Line(cells, marks, strong))
    return chart(f"{heading}, in milliseconds", ["candidate", *names[:wide]], lines, scale)


def _tokens(written: Sequence[Timed]) -> Html:
    """Return tokens in and out a row, and throughput where it was measured."""
    further = [k for k in ("cached_tokens", "tokens_per_second", "rows_per_second")
               if any(u.get(k) for _, u in written)]  # fmt: skip
    rows = [
        (c["title"], f"{u['prompt_tokens']:,.0f}", f"{u['completion_tokens']:,.1f}",
         *(_optional(u.get(k)) for k in further))
        for c, u in written
        if u.get("prompt_tokens") is not None
    ]  # fmt: skip
    headers = ["candidate", "tokens in, a row", "tokens out, a row",
               *(k.replace("_per_", " a ").replace("_", " ") for k in further)]  # fmt: skip
    return html.details("Tokens and throughput", html.table(headers, rows)) if rows else Html("")


def cost(report: Report) -> Html | None:
    """Return what answers cost in money, if the project has prices."""
    found = report.get("cost") or {}
    entries = [(e, key) for e in found.get("candidates", ()) if (key := _priced(e))]
    if not entries:
        return None
    ends = [e[k] for e, key in entries for k in (key, "low", "high") if e.get(k) is not None]
    scale = scale_over([0.0, *ends])
    lines = []
    for e, key in entries:
        strong, value = e.get("name") == subject(report), float(e[key])
        marks = bar(scale, value, _ACCENT if strong else _GREY)
        if e.get("low") is not None and e.get("high") is not None:
            marks += whisker(scale, e["low"], e["high"])
        ends_told = between(e.get("low"), e.get("high"), False)
        cells = (e.get("title") or e.get("name", ""), figure(value), ends_told)
        lines.append(Line(cells, marks, strong))
    unit = entries[0][1].replace("_", " ")
    return html.section(
        "What answers cost",
        chart("cost of every candidate", ["candidate", unit, "interval"], lines, scale),
        lead=f"{found.get('note', '')} Less is better.".strip(),
    )


def _priced(entry: Mapping[str, Any]) -> str | None:
    """Return the key that holds an entry's price: EUR_for_1000_answers, say."""
    figures = (k for k, v in entry.items() if isinstance(v, (int, float)))
    return next((k for k in figures if k not in ("low", "high")), None)


def _quantiles(found: Sequence[float]) -> tuple[str, str, str]:
    return figure(_at(found, 0.5)), figure(_at(found, 0.95)), figure(found[-1])


def _at(found: Sequence[float], share: float) -> float:
    """Return a quantile of sorted values: the nearest one that was measured."""
    return found[round((len(found) - 1) * share)]


def _most(values: Sequence[float]) -> list[float]:
    """Return where the axis ends: the 99.5th percentile, so that one giant does not squeeze all."""
    found = sorted(values)
    return [float(_at(found, 0.995))] if found else []


def _ms(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.1f} s"
    return f"{value:,.0f} ms" if value >= 10 or value == 0 else f"{value:.2g} ms"


def _optional(value: Any) -> str:
    if value is None:
        return "–"
    return figure(value) if isinstance(value, (int, float)) else str(value)
