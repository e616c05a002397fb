"""A comparison of two candidates as one page: who is better, every metric, the rows that changed.

It reads the document of comparison.py alone; its charts and rows look as the evaluation's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core import html
from tutelage.core.html import Html, Tone, esc
from tutelage.core.html_strips import Line, chart, dot, interval, scale_over, shares
from tutelage.evaluation import report_rows
from tutelage.evaluation.comparison import difference_told, metric_rows
from tutelage.evaluation.measures import is_rate, lower_is_better, told
from tutelage.evaluation.report_html import resource
from tutelage.evaluation.report_words import MEANING, axis_text, change, metric_name
from tutelage.evaluation.report_words import rows as counted

Comparison = Mapping[str, Any]
_SHOWN = 50  # changed rows a group; the counts are of all


def as_html(document: Comparison, project: str) -> str:
    """Return the whole page, self-contained."""
    a, b = document["a"], document["b"]
    return html.page(
        f"{project}: {a} against {b}",
        [
            html.verdict(_tone(document), _headline(document), document["sentence"]),
            _scores(document),
            _differences(document),
            _rows(document),
        ],
        subtitle=f"The same {counted(document['rows'], 'test row')}, paired",
        footer="Every figure was computed from the answers of both. Made by Tutelage.",
        style=resource("report.css"),
        script=resource("report.js"),
    )


def _primary(document: Comparison) -> Mapping[str, Any]:
    return next((m for m in document["metrics"] if m["metric"] == document["primary"]), {})


def _headline(document: Comparison) -> str:
    name = metric_name(document["primary"])
    outcome = _primary(document).get("outcome", "no difference seen")
    winner = {"a is better": document["a"], "b is better": document["b"]}.get(outcome)
    return f"{winner} is better on {name}" if winner else f"No difference can be seen on {name}"


def _tone(document: Comparison) -> Tone:
    return "good" if str(_primary(document).get("outcome")).endswith("better") else "note"


def _scores(document: Comparison) -> Html:
    """Return what both reach: a dot each, all shares on one scale."""
    a, b = document["a"], document["b"]
    rates, scale = [m for m in document["metrics"] if is_rate(m["metric"])], shares()
    lines = [
        Line(
            (_name(m["metric"]), told(m["metric"], m["a"]), told(m["metric"], m["b"])),
            [*dot(scale, m["b"], 1, 11), *dot(scale, m["a"], 0, 11)],
            m["metric"] == document["primary"],
        )
        for m in rates
    ]
    meant = [f"{_name(m['metric'])}: {MEANING[m['metric']]}." for m in rates
             if m["metric"] in MEANING]  # fmt: skip
    rest = [m for m in document["metrics"] if m not in rates]
    table = html.table(
        ["metric", a, b],
        [(_name(m["metric"]), told(m["metric"], m["a"]), told(m["metric"], m["b"])) for m in rest],
    )
    return html.section(
        "What both reach",
        html.legend([a, b]),
        chart("what both reach, metric by metric", ["metric", a, b], lines, scale),
        html.join([Html("<h3>Less is better</h3>"), table]) if rest else "",
        lead=" ".join(meant),
    )


def _name(metric: str) -> str:
    less = " (less is better)" if is_rate(metric) and lower_is_better(metric) else ""
    return f"{metric_name(metric).capitalize()}{less}"


def _differences(document: Comparison) -> Html:
    """Return a's gain over b with its interval, a chart a unit."""
    a, b = document["a"], document["b"]
    rates = [m for m in document["metrics"] if is_rate(m["metric"])]  # others: less is better
    charts = [_gains(document, rates)] if rates else []
    for entry in document["metrics"]:
        if entry not in rates:
            charts += [Html(f"<h3>{esc(_name(entry['metric']))}, turned: less is better</h3>")]
            charts += [_gains(document, [entry])]
    headers, table = metric_rows(document)
    return html.section(
        "Is the difference real?",
        *charts,
        html.details("Tests and power", html.table(headers, table)),
        lead=f"{a} minus {b}, turned so that a gain of {a} lies right of the dashed line. An "
        "interval that touches the line may be luck. p is corrected for the number of metrics "
        "(Holm), and who is better is said only where interval and p agree.",
    )


def _gains(document: Comparison, found: Sequence[Mapping[str, Any]]) -> Html:
    rate = is_rate(found[0]["metric"])
    ends = [float(m[key]) for m in found for key in ("low", "estimate", "high")]
    scale = scale_over(ends, references=[0.0], text=lambda v: axis_text(v, rate))
    better: dict[str, tuple[Tone, str]] = {
        "a is better": ("good", f"{document['a']} is better"),
        "b is better": ("bad", f"{document['b']} is better"),
    }
    lines = []
    for m in found:
        tone, says = better.get(m["outcome"], ("warn", "open"))
        low, high = (change(m[key], rate, 1) for key in ("low", "high"))
        gain = difference_told(m["metric"], m["estimate"])
        cells = (_name(m["metric"]), gain, f"{low} to {high}", f"{m['wins']} / {m['losses']}", says)
        marks = interval(scale, m["low"], m["estimate"], m["high"], tone)
        lines.append(Line(cells, marks, m["metric"] == document["primary"]))
    headers = ["metric", "gain", "interval", "better / worse rows", "reading"]
    return chart("gains with their intervals", headers, lines, scale)


def _rows(document: Comparison) -> Html:
    """Return the rows whose primary score differs, those where b is better first."""
    a, b, changed = document["a"], document["b"], document["changed"]
    groups = [("b_better", f"Better in {b}"), ("a_better", f"Better in {a}")]
    shown = [(key, title) for key, title in groups if changed[key]]
    return html.section(
        "Row by row",
        html.stats([(title.lower(), len(changed[key]), "") for key, title in groups]),
        report_rows.tools(shown) if shown else "",
        *(_group(document, key, title) for key, title in shown),
        lead="The rows whose score differs. Struck through are words that only "
        f"{b} wrote, underlined those that only {a} wrote.",
    )


def _group(document: Comparison, key: str, title: str) -> Html:
    found = document["changed"][key]
    told = f"{len(found):,}, {_SHOWN} shown" if len(found) > _SHOWN else f"{len(found):,}"
    cards = html.join([_row(document, row, key, title) for row in found[:_SHOWN]])
    return Html(
        f"<details class='rows' open><summary>{esc(title)} ({told})</summary>{cards}</details>"
    )


def _row(document: Comparison, row: Mapping[str, Any], key: str, title: str) -> Html:
    theirs, ours = report_rows.marked(row["b"], row["a"])
    tone: Tone = "good" if key == "a_better" else "bad"
    return report_rows.card(
        key,
        Html(f"{html.badge(tone, title)} <code>{esc(row['id'][:12])}</code>"),
        row["input"],
        [
            report_rows.answer("right answer", None, report_rows.text_of(row["expected"])),
            report_rows.answer(document["a"], row["score_a"], ours),
            report_rows.answer(document["b"], row["score_b"], theirs),
        ],
    )
