"""How a verdict looks: its chip, its panel with meaning and next steps, the criteria behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from tutelage.evaluation.report_verdict import meaning, next_steps
from tutelage.evaluation.report_words import TONE, WORD, by_name, metric_name, title_of
from tutelage.web.parts import layout
from tutelage.web.parts.cells import cell_table
from tutelage.web.parts.text import text


def verdict_chip(outcome: str) -> None:
    """Draw a verdict as a chip with its mark and its word."""
    if outcome in WORD:
        tone = TONE[outcome]
        layout.chip(WORD[outcome], "info" if tone == "note" else tone)
    else:
        layout.chip("No verdict", "idle")


def verdict_panel(report: Mapping[str, Any]) -> None:
    """Draw the verdict first: the sentence, what it means, what to do next, what to know."""
    verdict = report["verdict"]
    with layout.card():
        with ui.row().classes("items-center gap-3"):
            verdict_chip(verdict["outcome"])
            ui.label(verdict["sentence"]).classes("text-lg font-medium")
        for sentence in meaning(report):
            ui.label(sentence)
        told("What to do next", next_steps(report))
        told("Worth knowing", list(report.get("notes") or ()))


def criteria(report: Mapping[str, Any]) -> None:
    """Draw every criterion with its outcome and its evidence; all must pass."""
    found = report["verdict"].get("criteria") or ()
    if not found:
        return
    with layout.card("What decided"):
        ui.label(
            "All must pass. A criterion passes when its whole interval is on the right side of its "
            "limit; where the interval straddles the limit there is not enough evidence."
        ).classes("text-sm")
        rows = [
            [_criterion(report, str(c["name"])), _outcome(c["outcome"]), c["sentence"]]
            for c in found
        ]
        cell_table(("Criterion", "Outcome", "Evidence"), rows, name="Criteria")


def _criterion(report: Mapping[str, Any], name: str) -> str:
    """Return a criterion's name with the title of whom it compares with."""
    how, than, rest = name.partition(" than ")
    called, on, metric = rest.partition(" on ")
    for candidate in by_name(report):
        if than and called in (candidate, candidate.replace("_", "-")):
            return f"{how} than {title_of(report, candidate)}{on}{metric_name(metric)}"
    return metric_name(name)


def told(title: str, sentences: list[str]) -> None:
    """Draw sentences as a list under a small title; nothing if there are none."""
    if not sentences:
        return
    text("h3", title)
    with ui.element("ul").classes("list-disc pl-6"):
        for sentence in sentences:
            with ui.element("li"):
                _sentence(sentence)


def _sentence(sentence: str) -> None:
    """Draw a sentence; what stands in back quotes is a command."""
    for place, part in enumerate(sentence.split("`")):
        if part:
            text("code" if place % 2 else "span", part)


def _outcome(outcome: str) -> Any:
    return lambda: verdict_chip(outcome)
