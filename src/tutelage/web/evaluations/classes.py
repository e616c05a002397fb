"""Class by class: F1 of every label, and what is taken for what, as a heat map and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from tutelage.evaluation.candidates import BASE
from tutelage.evaluation.report_plots import UNREADABLE, mix_ups, most_confused
from tutelage.evaluation.report_words import Report, by_name, subject
from tutelage.web.parts import layout
from tutelage.web.parts.cells import Cell, cell_table, named

_LABELS = 24  # in the heat map; of more the most confused ones are drawn
_WEAKEST = 30  # classes in the table
_CELL = 22  # pixels of a cell of the heat map


def classes(report: Report) -> None:
    """Draw both parts for the candidate on trial; nothing where there are no classes."""
    shown = by_name(report).get(subject(report) or BASE)
    if not shown or not shown.get("per_class"):
        return
    with layout.card("Class by class"):
        _table(shown)
    if shown.get("confusion"):
        with layout.card("What is taken for what"):
            _confusion(shown["confusion"]["labels"], shown["confusion"]["counts"])


def _table(shown: Mapping[str, Any]) -> None:
    entries = [entry for entry in shown["per_class"] if entry.get("support")]
    entries.sort(key=lambda entry: (entry["f1"], entry["label"]))
    if len(entries) > _WEAKEST:
        ui.label(f"The {_WEAKEST} weakest of {len(entries)}; the full report has all.")
    rows: list[list[Cell]] = [
        [
            str(entry["label"]),
            *(f"{entry[key]:.2f}" for key in ("f1", "precision", "recall")),
            f"{entry['support']:,}",
        ]
        for entry in entries[:_WEAKEST]
    ]
    cell_table(
        ("Class", "F1", "Precision", "Recall", "Rows"), rows, name="Every class, weakest first"
    )


def _confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    pairs = mix_ups(labels, counts)
    left = list(range(len(labels)))
    if len(labels) > _LABELS:
        left = most_confused(labels, counts, _LABELS)
        ui.label(f"The {len(left)} labels most often confused, of {len(labels)}.")
    if left:
        _heat_map(labels, counts, left)
    if not pairs:
        ui.label("Nothing is mixed up.")
        return
    rows: list[list[Cell]] = [
        [truth, given, f"{count:,}", f"of {total:,}"] for truth, given, count, total in pairs[:15]
    ]
    cell_table(("Truth", "Answered", "Rows", "Of the class"), rows, name="Most frequent mix-ups")


def _heat_map(labels: Sequence[str], counts: Sequence[Sequence[int]], left: Sequence[int]) -> None:
    """Draw truth in lines and answers in columns, shaded by the share of the line."""
    names = [_short(labels[i]) for i in left]
    columns = [*left, *([len(labels)] if len(counts[0]) > len(labels) else [])]
    heads = [_short(labels[j]) if j < len(labels) else UNREADABLE for j in columns]
    points = []
    for y, i in enumerate(left):
        total = sum(counts[i]) or 1
        for x, j in enumerate(columns):
            if counts[i][j]:
                points.append([x, y, round(100 * counts[i][j] / total)])
    turn = 0 if len(heads) <= 6 else 60
    options = {
        "grid": {"left": 8, "top": 8, "right": 8, "bottom": 8, "containLabel": True},
        "xAxis": {"type": "category", "data": heads, "position": "top",
                  "axisLabel": {"rotate": turn, "interval": 0, "fontSize": 12}},
        "yAxis": {"type": "category", "data": names, "inverse": True,
                  "axisLabel": {"interval": 0, "fontSize": 12}},
        "visualMap": {"min": 0, "max": 100, "show": False,
                      "inRange": {"color": ["rgba(59, 130, 214, 0.18)", "#3b82d6"]}},
        "series": [{"type": "heatmap", "data": points, "animation": False}],
    }  # fmt: skip
    height = (60 if turn == 0 else 150) + _CELL * len(names)
    plot = (
        ui.echart(options, renderer="svg")
        .classes("tt-chart")
        .style(f"height: {height}px; max-width: 900px")
    )
    plot.props("role=img")
    named(plot, f"Confusion of {len(names)} labels; the table below lists its mistakes")


def _short(label: str) -> str:
    return label if len(label) <= 28 else f"{label[:27]}…"
