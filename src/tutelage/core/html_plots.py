"""Plots of many points and of pairs, as inline SVG and tables for core/html.py's pages.

No script: what a point is, is its tooltip. It knows nothing of what the numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tutelage.core.html import WIDE, Html, esc, figure, legend, scroll

_COLOURS = 6
_TEXT = 160  # characters of a tooltip


@dataclass(frozen=True)
class Point:
    """One point: where it is, its series (a colour), its tooltip, and whether it is marked."""

    x: float
    y: float
    series: int
    text: str
    marked: bool = False


def scatter(
    points: Sequence[Point], names: Sequence[str], *, marked: str = "", width: int = WIDE
) -> Html:
    """Return a map of points without axes; `names` are the series, `marked` names the rings.

    Marked points lie on top. Points that are not finite are left out.
    """
    shown = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y)]
    if not shown:
        return Html("<p class='soft'>nothing to show</p>")
    low_x, high_x = min(p.x for p in shown), max(p.x for p in shown)
    low_y, high_y = min(p.y for p in shown), max(p.y for p in shown)
    height, pad = round(width * 0.52), 10
    marks = []
    for point in sorted(shown, key=lambda p: p.marked):
        x = pad + (width - 2 * pad) * (point.x - low_x) / ((high_x - low_x) or 1)
        y = height - pad - (height - 2 * pad) * (point.y - low_y) / ((high_y - low_y) or 1)
        tip = point.text if len(point.text) <= _TEXT else point.text[: _TEXT - 1] + "…"
        ring = (
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='6.5' fill='none' stroke='var(--bad)' "
            "stroke-width='1.8'/>"
            if point.marked
            else ""
        )
        marks.append(
            f"<g>{ring}<circle class='f{point.series % _COLOURS}' cx='{x:.1f}' cy='{y:.1f}' "
            f"r='3' fill-opacity='.75'/><title>{esc(tip)}</title></g>"
        )
    key = legend(names) if names else Html("")
    ring_key = (
        Html(
            "<div class='legend'><span><svg viewBox='0 0 14 14' style='display:inline-block;"
            "width:13px;height:13px;margin:0 6px 0 0;vertical-align:-2px'><circle cx='7' cy='7' "
            "r='5.5' fill='none' stroke='var(--bad)' stroke-width='1.8'/></svg>"
            f"{esc(marked)}</span></div>"
        )
        if marked
        else Html("")
    )
    drawing = (
        f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='map of {len(shown)} points' "
        f"style='max-width:{width * 1.15:.0f}px'>{''.join(marks)}</svg>"
    )
    return Html(key + ring_key + drawing)


def heat_table(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Mapping[tuple[str, str], float],
    *,
    corner: str = "",
) -> Html:
    """Return a table whose cells are the darker the larger their value; 0 and absent are empty."""
    top = max(values.values(), default=0) or 1
    head = "".join(f"<th scope='col'>{esc(name)}</th>" for name in columns)
    lines = []
    for row in rows:
        cells = []
        for column in columns:
            value = values.get((row, column), 0)
            share = round(12 + 70 * value / top)
            style = (
                f" style='background:color-mix(in srgb, var(--s1) {share}%, transparent)'"
                if value
                else ""
            )
            tip = f"{row} → {column}: {figure(value)}"
            text = figure(value) if value else ""
            cells.append(f"<td class='n'{style} title='{esc(tip)}'>{esc(text)}</td>")
        lines.append(f"<tr><th scope='row'>{esc(row)}</th>{''.join(cells)}</tr>")
    first = f"<th scope='col'>{esc(corner)}</th>" if corner else "<td></td>"
    return scroll(
        f"<table><thead><tr>{first}{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>",
        "table",
    )
