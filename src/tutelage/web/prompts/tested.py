"""A version's test: what it says, its figures, and the rows that are answered otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from tutelage.evaluation.measures import is_rate
from tutelage.evaluation.report_words import amount, change, metric_name
from tutelage.web.parts import diff, layout
from tutelage.web.parts.cells import RULE
from tutelage.web.parts.layout import Kind
from tutelage.web.parts.text import passage, text

_KINDS: dict[str, tuple[str, Kind]] = {
    "worse": ("worse", "bad"),
    "better": ("better", "good"),
    "other_words": ("other words, same score", "idle"),
}


def evidence(document: Mapping[str, Any]) -> None:
    """Draw a test's document: the sentence, the figures, the changed rows side by side."""
    text("p", document["sentence"])
    layout.facts(_figures(document))
    counts = document.get("counts") or {}
    with ui.row().classes("gap-2"):
        for kind, (word, look) in _KINDS.items():
            if counts.get(kind):
                layout.chip(f"{counts[kind]:,} {word}", look)
    rows = document.get("changed") or []
    if not rows:
        text("p", "Every row is answered word for word as before.", "tt-muted")
        return
    shown = f"Rows answered otherwise: {len(rows)} shown"
    with ui.expansion(shown, value=len(rows) <= 5).classes("w-full"):
        for row in rows:
            _row(row)


def _figures(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    metric = str(document["metric"])
    share = is_rate(metric)
    scores = document["scores"]
    told = [f"{amount(scores.get('draft'), share, 1)} with this version"]
    if "published" in scores:
        told.append(f"{amount(scores['published'], share, 1)} with the published one")
    facts = [(metric_name(metric).capitalize(), ", ".join(told))]
    found = document.get("difference")
    if found:
        ends = f"{change(found['low'], share, 1)} to {change(found['high'], share, 1)}"
        gain = change(found["estimate"], share, 1) + (" points" if share else "")
        facts.append(("Gain", f"{gain} ({ends})"))
    must, golden = document.get("must_pass") or {}, document.get("golden") or {}
    if must.get("rows"):
        facts.append(("Must-pass rows", f"{len(must['failed'])} of {must['rows']} fail"))
    if golden.get("rows"):
        facts.append(("Golden prompts", f"{golden['same_text']} of {golden['rows']} word for word "
                      f"as released, {len(golden['lost'])} lost"))  # fmt: skip
    facts += [("Rows", f"{document['rows']:,}"), ("Asked", str(document["model"]["name"]))]
    return facts


def _row(row: Mapping[str, Any]) -> None:
    with ui.element("article").classes("w-full py-3 flex flex-col gap-2").style(RULE):
        layout.chip(*_KINDS.get(str(row["kind"]), (str(row["kind"]), "idle")))
        passage(row["input"])
        with ui.element("div").classes("grid grid-cols-1 md:grid-cols-3 gap-4 w-full"):
            for title, content in (("Right answer", row["expected"]), ("Before", row["before"])):
                with ui.column().classes("gap-1 min-w-0"):
                    text("h4", title)
                    passage(content or "–")
            with ui.column().classes("gap-1 min-w-0"):
                text("h4", "Now")
                diff.word_diff(row["before"] or "", row["after"] or "")
