"""A comparison of two candidates as one page: who is better, every metric, the rows that changed.

It reads the document of comparison.py alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core import html
from tutelage.core.html import Html
from tutelage.evaluation.comparison import metric_rows
from tutelage.evaluation.measures import is_rate

_SHOWN = 50  # changed rows a group; the counts are of all


def as_html(document: Mapping[str, Any], project: str) -> str:
    """Return the whole page, self-contained."""
    a, b, changed = document["a"], document["b"], document["changed"]
    parts = [
        html.verdict(_tone(document), _headline(document), document["sentence"]),
        _metrics(document),
        _rows(document, changed["a_better"], f"Better in {a}"),
        _rows(document, changed["b_better"], f"Better in {b}"),
    ]
    return html.page(
        f"{project}: {a} against {b}",
        parts,
        subtitle=f"The same {document['rows']:,} test rows, paired",
        footer="Every figure was computed from the answers of both. Made by Tutelage.",
    )


def _primary(document: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((m for m in document["metrics"] if m["metric"] == document["primary"]), {})


def _headline(document: Mapping[str, Any]) -> str:
    outcome = _primary(document).get("outcome", "no difference seen")
    winner = {"a is better": document["a"], "b is better": document["b"]}.get(outcome)
    return f"{winner} is better on {document['primary']}" if winner else (
        f"No difference can be seen on {document['primary']}"
    )  # fmt: skip


def _tone(document: Mapping[str, Any]) -> html.Tone:
    return "good" if str(_primary(document).get("outcome")).endswith("better") else "note"


def _metrics(document: Mapping[str, Any]) -> Html:
    headers, table = metric_rows(document)
    shares = [
        (m["metric"], m["low"], m["estimate"], m["high"])
        for m in document["metrics"]
        if is_rate(m["metric"])
    ]
    plot = html.intervals(shares, reference=0.0, percent=True) if shares else Html("")
    return html.section(
        "Every metric",
        plot,
        html.table(headers, table),
        lead=f"A gain of {document['a']} over {document['b']} lies right of the line. p is "
        "corrected for the number of metrics (Holm).",
    )


def _rows(document: Mapping[str, Any], group: Sequence[Mapping[str, Any]], title: str) -> Html:
    heading = f"{title}: {len(group):,} of {document['rows']:,} rows"
    if not group:
        return html.section(heading)
    cells = [(r["id"][:8], r["input"], r["expected"], r["a"], r["b"]) for r in group[:_SHOWN]]
    headers = ["row", "asked", "expected", document["a"], document["b"]]
    rest = f"The first {_SHOWN} are shown." if len(group) > _SHOWN else ""
    return html.section(heading, html.table(headers, cells), lead=rest)
