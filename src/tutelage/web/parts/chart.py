"""Plots with a text beside them: lines over time, intervals, bars. They decide no scale of meaning.

Lines are drawn by ECharts as SVG, whose words take their colour from the stylesheet. Intervals
and bars are tables whose cells hold the drawing, so they need no other text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from tutelage.web.parts.table import plain_table
from tutelage.web.parts.text import hidden, text
from tutelage.web.parts.theme import PALETTE
from tutelage.web.parts.words import number

Points = Sequence[tuple[float | str, float | None]]  # a number or an ISO time, and the value
_SHOWN = 12  # points of a line that its table shows
_GRID = "#7c859280"  # seen on light and on dark


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval. `note` is said behind the figures."""

    name: str
    value: float
    low: float
    high: float
    note: str = ""


class Line:
    """A drawn plot of lines; `set` gives it other points without drawing it anew."""

    def __init__(self, series: Mapping[str, Points], *, name: str, unit: str, time: bool) -> None:
        self._name, self._unit, self._time = name, unit, time
        self._chart = ui.echart(self._options(series), renderer="svg").classes("tt-chart")
        self._chart.props["role"] = "img"
        with ui.element("details").classes("tt-chart-text"):
            text("summary", f"As a table: {name.partition(', ')[0]}")
            self._table = ui.element("div")
        self.set(series)

    def set(self, series: Mapping[str, Points]) -> None:
        """Show these points."""
        self._chart.options["series"] = _series(series)
        self._chart.update()
        self._chart.props["aria-label"] = self._sentence(series)
        self._table.clear()
        with self._table:
            plain_table(["at", *series], _rows(series), name=self._name)

    def _sentence(self, series: Mapping[str, Points]) -> str:
        said = []
        for name, points in series.items():
            known = [value for _, value in points if value is not None]
            if known:
                said.append(
                    f"{name} from {number(known[0])} to {number(known[-1])} {self._unit}".strip()
                )
        return f"{self._name}: {'; '.join(said) or 'no points yet'}"

    def _options(self, series: Mapping[str, Points]) -> dict[str, Any]:
        x, y = _axes(self._name, self._unit)
        grid = {"lineStyle": {"color": _GRID}}
        return {
            "animation": False,
            "color": list(PALETTE),
            "grid": {"left": 8, "right": 16, "top": 36, "bottom": 28 if x else 8,
                     "containLabel": True},
            "legend": {"show": len(series) > 1, "right": 0, "top": 0, "icon": "roundRect"},
            "tooltip": {"trigger": "axis", "confine": True, "renderMode": "richText"},
            "xAxis": {"type": "time" if self._time else "value", "min": "dataMin",
                      "max": "dataMax", "splitLine": {"show": False},
                      "name": x, "nameLocation": "middle", "nameGap": 26},
            "yAxis": {"type": "value", "scale": True, "name": y, "axisLine": {"show": False},
                      "splitLine": grid},
            "series": [],
        }  # fmt: skip


def line(series: Mapping[str, Points], *, name: str, unit: str = "", time: bool = False) -> Line:
    """Draw lines: {name: [(x, y), …]}; `time` when x is an ISO time. A table stands below it."""
    return Line(series, name=name, unit=unit, time=time)


def _axes(name: str, unit: str) -> tuple[str, str]:
    """Return what stands at the axes of "Loss by step, nats": step and nats."""
    what, _, told = name.partition(", ")
    return what.partition(" by ")[2], unit or told


def _series(series: Mapping[str, Points]) -> list[dict[str, Any]]:
    return [
        {"name": name, "type": "line", "showSymbol": len(points) < 3, "symbolSize": 6,
         "data": [[x, y] for x, y in points], "lineStyle": {"width": 2}}
        for name, points in series.items()
    ]  # fmt: skip


def _rows(series: Mapping[str, Points]) -> list[list[object]]:
    places = list(dict.fromkeys(x for points in series.values() for x, _ in points))
    step = max(1, -(-len(places) // _SHOWN))
    chosen = places[::-1][::step][::-1]
    values = [dict(points) for points in series.values()]
    return [[x if isinstance(x, str) else number(x),
             *(number(of.get(x)) for of in values)] for x in chosen]  # fmt: skip


def intervals(
    rows: Sequence[Interval],
    *,
    name: str,
    low: float | None = None,
    high: float | None = None,
    mark: float | None = None,
    percent: bool = False,
) -> None:
    """Draw values as dots with their intervals on one scale; `mark` is a line to compare with.

    The ends of the scale stand below; all figures have as many digits as it needs.
    """
    ends = [end for row in rows for end in (row.low, row.high)]
    ends += [] if mark is None else [mark]
    start = min(ends, default=0.0) if low is None else low
    stop = max(ends, default=1.0) if high is None else high
    width = (stop - start) or 1.0
    digits = _digits(width)
    unit = "\u00a0%" if percent else ""

    def place(value: float) -> float:
        return min(100.0, max(0.0, (value - start) / width * 100))

    def said(value: float) -> str:
        return number(value * 100, 1) if percent else number(value, digits)

    with ui.element("table").classes("tt-table tt-plot"):
        with ui.element("caption"):
            hidden(name)
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    text("th", row.name).props('scope="row"')
                    with ui.element("td").classes("tt-plot-cell"):
                        _interval(place(row.low), place(row.value), place(row.high),
                                  None if mark is None else place(mark))  # fmt: skip
                    figures = f"{said(row.value)}{unit} ({said(row.low)} to {said(row.high)})"
                    text("td", f"{figures} {row.note}".strip(), "tt-number")
        if rows:
            _scale(*(f"{said(end).removesuffix('.0')}{unit}" for end in (start, stop)))


def _digits(width: float) -> int:
    """Return how many digits behind the point tell values on a scale this wide apart."""
    if not 0 < width < math.inf:
        return 2
    return min(4, max(0, 2 - math.floor(math.log10(width))))


def _scale(low: str, high: str) -> None:
    with ui.element("tfoot").props('aria-hidden="true"'), ui.element("tr"):
        ui.element("td")
        with ui.element("td"), ui.element("div").classes("tt-scale"):
            text("span", low)
            text("span", high)
        ui.element("td")


def _interval(low: float, value: float, high: float, mark: float | None) -> None:
    with ui.element("div").classes("tt-track").props('aria-hidden="true"'):
        if mark is not None:
            ui.element("div").classes("tt-track-mark").style(f"left: {mark:.2f}%")
        span = ui.element("div").classes("tt-track-span")
        span.style(f"left: {low:.2f}%; width: {max(high - low, 0.5):.2f}%")
        ui.element("div").classes("tt-track-dot").style(f"left: {value:.2f}%")


def bars(rows: Sequence[tuple[str, float]], *, name: str, unit: str = "", one: str = "") -> None:
    """Draw named values as bars on one scale that begins at 0; `one` is the unit of a single."""
    most = max((value for _, value in rows), default=0.0) or 1.0
    with ui.element("table").classes("tt-table tt-plot"):
        with ui.element("caption"):
            hidden(name)
        with ui.element("tbody"):
            for title, value in rows:
                with ui.element("tr"):
                    text("th", title).props('scope="row"')
                    with ui.element("td").classes("tt-plot-cell"):
                        track = ui.element("div").classes("tt-track").props('aria-hidden="true"')
                        with track:
                            bar = ui.element("div").classes("tt-track-bar")
                            bar.style(f"width: {max(0.0, value / most * 100):.2f}%")
                    said = one if one and value == 1 else unit
                    text("td", f"{number(value)} {said}".strip(), "tt-number")
