"""The page's part on length, time and money of answers. It reads the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core import html
from tutelage.core.html import Html, figure
from tutelage.core.html_strips import Line, bins, chart, columns, dot, scale_over, span, tick
from tutelage.evaluation.report_words import Report, subject

_GREY, _ACCENT = 5, 0
_TIMES = (  # (prefix of the usage keys, heading, sentence)
    ("", "Whole answer", ""),
    ("first_token_", "First token", "How long a reader waits until something appears."),
    ("per_token_", "Time a token", "All time over all tokens written."),
)


def lengths(report: Report) -> Html | None:
    """Return how long the answers are, candidate by candidate."""
    written = [c for c in report["candidates"] if c.get("lengths")]
    if not written:
        return None
    values = [v for c in written for v in c["lengths"]]
    scale = scale_over([0.0, *_most(values)])
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
    """Return the time of an answer: whole, to the first token, a token; and tokens a row."""
    written = [c for c in report["candidates"] if c.get("usage")]
    if not written:
        return None
    body: list[object] = []
    for prefix, heading, note in _TIMES:
        drawn = _ladder(report, written, prefix, heading)
        if drawn:
            body.append(Html(f"<h3>{heading}</h3>"))
            body += [html.paragraph(note)] if note else []
            body.append(drawn)
    body.append(_tokens(written))
    at_once = report.get("method", {}).get("batch_size")
    how = f", {at_once} at a time on this machine" if at_once else ""
    return html.section(
        "Time of an answer",
        *body,
        lead=f"Half, 95 % and 99 % of answers came within these times{how}: the dot, the tall "
        "tick and the end of the line. Live traffic measures them again during a rollout.",
    )


def _ladder(
    report: Report, written: Sequence[Mapping[str, Any]], prefix: str, heading: str
) -> Html | None:
    """Return 50th, 95th and 99th percentile as far as each is there."""
    found = []
    for c in written:
        usage = c["usage"]
        given = [usage.get(f"{prefix}{p}_ms") for p in ("p50", "p95", "p99")]
        if prefix == "first_token_" and given[1] is None:
            given = _from_list(c.get("first_tokens_ms"), given)
        if given[0] is None:
            given[0] = usage.get(f"{prefix}ms")
        if given[0] is not None:
            found.append((c, [None if v is None else float(v) for v in given]))
    if not found:
        return None
    scale = scale_over([0.0, *(v for _, given in found for v in given if v is not None)], text=_ms)
    lines = []
    for c, given in found:
        strong = c["name"] == subject(report)
        colour = _ACCENT if strong else _GREY
        known = [v for v in given if v is not None]
        marks = span(scale, known[0], known[-1], colour) if len(known) > 1 else []
        marks = [*marks, *dot(scale, known[0], colour, 11)]
        marks += tick(scale, known[1], colour) if len(known) > 2 else []
        lines.append(Line([c["title"], *map(_ms, known)], marks, strong))
    names = ["median", "95 %", "99 %"] if prefix != "per_token_" else ["mean", "95 %", "99 %"]
    headers = ["candidate", *names[: max(len(line.cells) for line in lines) - 1]]
    lines = [Line([*n.cells, *[""] * (len(headers) - len(n.cells))], n.marks, n.strong)
             for n in lines]  # fmt: skip
    return chart(f"{heading}, in milliseconds", headers, lines, scale)


def _from_list(values: Sequence[float] | None, given: list[Any]) -> list[Any]:
    """Return the percentiles of single measurements, where the document has them."""
    if not values:
        return given
    found = sorted(values)
    return [_at(found, q) for q in (0.5, 0.95, 0.99)]


def _tokens(written: Sequence[Mapping[str, Any]]) -> Html:
    rows = [
        (
            c["title"],
            f"{c['usage']['prompt_tokens']:,.0f}",
            f"{c['usage']['completion_tokens']:,.1f}",
            *(_optional(c["usage"].get(k)) for k in ("tokens_per_second",)),
        )
        for c in written
        if c["usage"].get("prompt_tokens") is not None
    ]
    headers = ["candidate", "tokens in, a row", "tokens out, a row", "tokens a second"]
    if all(row[3] == "–" for row in rows):
        rows = [row[:3] for row in rows]
        headers = headers[:3]
    return html.details("Tokens", html.table(headers, rows)) if rows else Html("")


def cost(report: Report) -> Html | None:
    """Return what answers cost in money, if the project has prices."""
    found = report.get("cost")
    rows = found.get("candidates") if isinstance(found, Mapping) else found
    if not rows or not isinstance(rows, Sequence) or isinstance(rows, str):
        return None
    entries = [r for r in rows if isinstance(r, Mapping)]
    names = list(dict.fromkeys(key for r in entries for key in r if key not in ("name", "title")))
    lines = [
        (r.get("title") or r.get("name", ""), *(_optional(r.get(n)) for n in names))
        for r in entries
    ]
    if not lines:
        return None
    headers = ["candidate", *(n.replace("_", " ") for n in names)]
    note = found.get("note", "") if isinstance(found, Mapping) else ""
    return html.section("What answers cost", html.table(headers, lines), lead=str(note))


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
    return f"{value / 1000:,.1f} s" if value >= 10_000 else f"{value:,.0f} ms"


def _optional(value: Any) -> str:
    if value is None:
        return "–"
    return figure(value) if isinstance(value, (int, float)) else str(value)
