"""Charts that only an evaluation needs: the confusion matrix and scores a class, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core.html import Html, esc, legend

_CELL = 26
_CHAR = 6.7  # width of a character at the charts' text size


def scores(
    rows: Sequence[tuple[str, float, float, float]],
    *,
    strong: str = "",
    room: int = 36,
    width: int = 820,
) -> Html:
    """Return scores 0..1 on one axis from 0 to 100 %: (label, low, mid, high), a bar and its
    interval a row. The row labelled `strong` has the accent colour, the others are grey; labels
    get `room` characters, so charts above one another line up.
    """
    left = max([room, *(len(row[0]) for row in rows)]) * _CHAR + 20
    right = 170.0
    span = width - left - right
    bottom = len(rows) * 36 + 4
    marks = []
    for k in range(5):
        x = left + span * k / 4
        marks.append(
            f"<line class='axis' x1='{x:.1f}' x2='{x:.1f}' y1='0' y2='{bottom}'/>"
            f"<text class='soft' x='{x:.1f}' y='{bottom + 16}' text-anchor='middle'>"
            f"{k * 25} %</text>"
        )
    for i, (label, low, mid, high) in enumerate(rows):
        y = i * 36 + 20
        chosen = label == strong
        fill = "var(--s0)" if chosen else "var(--s5)"
        weight = " style='font-weight:650'" if chosen else ""
        at = [left + span * value for value in (low, mid, high)]
        marks += [
            f"<text x='{left - 12:.1f}' y='{y + 4}' text-anchor='end'{weight}>{esc(label)}</text>",
            f"<rect x='{left:.1f}' y='{y - 9}' width='{max(at[1] - left, 1.5):.1f}' height='18' "
            f"rx='3' fill='{fill}' fill-opacity='{0.85 if chosen else 0.45}'/>",
            f"<path d='M{at[0]:.1f} {y - 5}v10M{at[0]:.1f} {y}H{at[2]:.1f}M{at[2]:.1f} {y - 5}v10' "
            "stroke='var(--ink)' stroke-width='1.5' fill='none'/>",
            f"<text x='{width - right + 62:.1f}' y='{y + 4}' text-anchor='end'{weight}>"
            f"{mid * 100:.0f} %</text>",
            f"<text class='soft' x='{width - right + 76:.1f}' y='{y + 4}'>"
            f"{low * 100:.0f} to {high * 100:.0f}</text>",
        ]
    return Html(
        f"<svg viewBox='0 0 {width} {bottom + 22}' role='img' aria-label='scores' "
        f"style='max-width:{width * 1.25:.0f}px'>{''.join(marks)}</svg>"
    )


def confusion_matrix(matrix: Mapping[str, Any], unreadable: str = "no label") -> Html:
    """Return the heat map: a row a true label, a column a given one, shares of the row as shade.

    Right answers are on the diagonal in the good colour; the last column is text without a label.
    """
    labels: Sequence[str] = matrix["labels"]
    counts: Sequence[Sequence[int]] = matrix["counts"]
    columns = [*labels, unreadable]
    left = max((len(label) for label in labels), default=0) * _CHAR + 14
    top = max(len(label) for label in columns) * _CHAR * 0.72 + 16
    width = left + len(columns) * _CELL + top * 0.8
    height = top + len(labels) * _CELL + 6
    marks = []
    for j, label in enumerate(columns):
        x = left + j * _CELL + _CELL * 0.6
        marks.append(
            f"<text class='soft' transform='translate({x:.1f},{top - 8:.1f}) rotate(-45)'>"
            f"{esc(label)}</text>"
        )
    for i, label in enumerate(labels):
        y = top + i * _CELL
        marks.append(
            f"<text x='{left - 8:.1f}' y='{y + 17:.1f}' text-anchor='end'>{esc(label)}</text>"
        )
        total = sum(counts[i]) or 1
        for j, given in enumerate(columns):
            marks += _cell((left + j * _CELL, y), counts[i][j], total, i == j, f"{label} → {given}")
    return Html(
        f"<div class='scroll'><svg viewBox='0 0 {width:.0f} {height:.0f}' role='img' "
        f"aria-label='confusion matrix' style='max-width:{width * 1.35:.0f}px;min-width:"
        f"{width * 0.7:.0f}px'>{''.join(marks)}</svg></div>"
    )


def _cell(at: tuple[float, float], count: int, total: int, hit: bool, tip: str) -> list[str]:
    x, y = at
    colour = "var(--good)" if hit else "var(--bad)"
    box = f"x='{x + 1:.1f}' y='{y + 1:.1f}' width='{_CELL - 2}' height='{_CELL - 2}' rx='3'"
    marks = [f"<rect {box} fill='var(--wash)'/>"]
    if count:
        share = 0.18 + 0.82 * count / total
        marks.append(
            f"<rect {box} fill='{colour}' fill-opacity='{share:.2f}'>"
            f"<title>{esc(tip)}: {count} of {total}</title></rect>"
        )
        ink = "var(--card)" if share > 0.55 else "var(--ink)"
        marks.append(
            f"<text x='{x + _CELL / 2:.1f}' y='{y + 17.5:.1f}' text-anchor='middle' "
            f"style='fill:{ink}'>{count}</text>"
        )
    return marks


def grouped_bars(
    rows: Sequence[tuple[str, str, Sequence[float]]], names: Sequence[str], *, width: int = 820
) -> Html:
    """Return thin bars side by side: (label, hint, values 0..1), one value a series of `names`."""
    left = min(max((len(label) for label, _, _ in rows), default=0) * _CHAR + 16, width * 0.4)
    right = max((len(hint) for _, hint, _ in rows), default=0) * _CHAR + 14
    span = width - left - right
    bar = 7
    step = bar * len(names) + 9
    marks = []
    for i, (label, hint, values) in enumerate(rows):
        y = i * step + 6
        middle = y + bar * len(names) / 2 + 4
        marks.append(
            f"<text x='{left - 12:.1f}' y='{middle:.1f}' text-anchor='end'>{esc(label)}</text>"
        )
        marks.append(
            f"<text class='soft' x='{width - right + 14:.1f}' y='{middle:.1f}'>{esc(hint)}</text>"
        )
        for k, value in enumerate(values):
            top = y + k * bar
            length = max(span * value, 1.5)
            marks.append(
                f"<rect class='f{k % 6}' x='{left:.1f}' y='{top:.1f}' height='{bar - 1.5}' "
                f"width='{length:.1f}' rx='1.5'><title>{esc(f'{label}, {names[k]}')}: "
                f"{value:.2f}</title></rect>"
            )
    height = len(rows) * step + 4
    return Html(
        legend(names) + f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='scores a "
        f"class' style='max-width:{width * 1.25:.0f}px'>{''.join(marks)}</svg>"
    )


def ladder(
    rows: Sequence[tuple[str, float, float, float]], *, unit: str = "ms", width: int = 820
) -> Html:
    """Return the 50th, 95th and 99th percentile of each row as dots on one line, from 0."""
    left = min(max((len(row[0]) for row in rows), default=0) * _CHAR + 16, width * 0.42)
    shown = [f"{a:,.0f} / {b:,.0f} / {c:,.0f} {unit}" for _, a, b, c in rows]
    right = max((len(s) for s in shown), default=0) * _CHAR + 16
    top = max((max(row[1:]) for row in rows), default=1.0) or 1.0
    span = width - left - right - 8
    marks = []
    for i, (label, *values) in enumerate(rows):
        y = i * 34 + 17
        places = [left + span * value / top for value in values]
        marks += [
            f"<text x='{left - 12:.1f}' y='{y + 4}' text-anchor='end'>{esc(label)}</text>",
            f"<line class='axis' x1='{left:.1f}' x2='{left + span:.1f}' y1='{y}' y2='{y}'/>",
            f"<line class='l{i % 6}' x1='{places[0]:.1f}' x2='{places[2]:.1f}' y1='{y}' y2='{y}'/>",
            f"<text class='soft' x='{width - right + 16:.1f}' y='{y + 4}'>{esc(shown[i])}</text>",
        ]
        for radius, place in zip((5.5, 4.5, 3.5), places, strict=True):
            marks.append(f"<circle class='f{i % 6}' cx='{place:.1f}' cy='{y}' r='{radius}'/>")
    return Html(
        f"<svg viewBox='0 0 {width} {len(rows) * 34 + 2}' role='img' aria-label='latency' "
        f"style='max-width:{width * 1.25:.0f}px'>{''.join(marks)}</svg>"
    )
