"""Plots with a text beside them: lines over time, intervals, bars. They decide no scale of meaning.

Lines are drawn by ECharts as SVG, whose words take their colour from the stylesheet. Intervals
and bars are tables whose cells hold the drawing, so they need no other text.
"""

from __future__ import annotations

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
            text("summary", f"{name} as a table")
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
        axis = {"axisLine": {"show": False}, "splitLine": {"lineStyle": {"opacity": 0.25}}}
        return {
            "animation": False,
            "color": list(PALETTE),
            "grid": {"left": 8, "right": 16, "top": 36, "bottom": 8, "containLabel": True},
            "legend": {"show": len(series) > 1, "left": 0, "top": 0, "icon": "roundRect"},
            "tooltip": {"trigger": "axis", "confine": True, "renderMode": "richText"},
            "xAxis": {"type": "time" if self._time else "value", "min": "dataMin",
                      "max": "dataMax", "splitLine": {"show": False}},
            "yAxis": {"type": "value", "scale": True, "name": self._unit, **axis},
            "series": [],
        }  # fmt: skip


def line(series: Mapping[str, Points], *, name: str, unit: str = "", time: bool = False) -> Line:
    """Draw lines: {name: [(x, y), …]}; `time` when x is an ISO time. A table stands below it."""
    return Line(series, name=name, unit=unit, time=time)


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
    """Draw values as dots with their intervals on one scale; `mark` is a line to compare with."""
    ends = [end for row in rows for end in (row.low, row.high)]
    ends += [] if mark is None else [mark]
    start = min(ends, default=0.0) if low is None else low
    stop = max(ends, default=1.0) if high is None else high
    width = (stop - start) or 1.0

    def place(value: float) -> float:
        return min(100.0, max(0.0, (value - start) / width * 100))

    def said(value: float) -> str:
        return f"{value * 100:.1f}" if percent else number(value)

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
                    unit = " %" if percent else ""
                    figures = f"{said(row.value)}{unit} ({said(row.low)} to {said(row.high)})"
                    text("td", f"{figures} {row.note}".strip(), "tt-number")


def _interval(low: float, value: float, high: float, mark: float | None) -> None:
    with ui.element("div").classes("tt-track").props('aria-hidden="true"'):
        if mark is not None:
            ui.element("div").classes("tt-track-mark").style(f"left: {mark:.2f}%")
        span = ui.element("div").classes("tt-track-span")
        span.style(f"left: {low:.2f}%; width: {max(high - low, 0.5):.2f}%")
        ui.element("div").classes("tt-track-dot").style(f"left: {value:.2f}%")


def bars(rows: Sequence[tuple[str, float]], *, name: str, unit: str = "") -> None:
    """Draw named values as bars on one scale that begins at 0."""
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
                    text("td", f"{number(value)} {unit}".strip(), "tt-number")
