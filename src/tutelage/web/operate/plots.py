"""Plots of operations as ECharts options: latencies over time, the tests' evidence, use by day.

Plain data in, plain options out; `Plot` puts them on the page and keeps them up to date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from tutelage.web.operate.states import TESTS
from tutelage.web.parts.text import text
from tutelage.web.parts.theme import PALETTE

Data = Mapping[str, Any]
_INK, _LINE = "#7c8592", "#7c859255"  # read on light and on dark
_STABLE, _CANDIDATE, _BAD = PALETTE[0], PALETTE[1], "#d0453f"
_LEAST = -3  # powers of ten of evidence; what is less lies on the lowest line
_FLOOR = f"value => value === {_LEAST} ? '≤ {_LEAST}' : value"


class Plot:
    """A plot with its words: a sentence that says what it shows, for eyes and screen readers."""

    def __init__(self, name: str, height: str = "16rem") -> None:
        self._name = name
        with ui.element("figure").classes("w-full m-0"):
            self._chart = ui.echart({}, renderer="svg").classes("tt-chart w-full")
            self._chart.style(f"height: {height}")
            self._chart.props["role"] = "img"
            self._chart.props["aria-label"] = name
            self._says = text("figcaption", name, "tt-muted")

    def show(self, options: Mapping[str, Any], says: str) -> None:
        """Draw `options`; `says` tells the same in a sentence."""
        if self._chart.options != options:
            self._chart.options.clear()
            self._chart.options.update(options)
            self._chart.update()
        self._chart.props["aria-label"] = f"{self._name}. {says}"
        self._says.text = says


def course(rows: Sequence[Data], candidate: str, stable: str) -> dict[str, Any]:
    """Return latency over time: median and p95 of both arms."""
    series = []
    for side, name, colour in (("baseline", stable, _STABLE), ("canary", candidate, _CANDIDATE)):
        for figure, kind in (("p95", "solid"), ("p50", "dotted")):
            points = [[row["at"] * 1000, _rounded(row[side][figure])] for row in rows]
            series.append(_line(f"{name}, {figure}", points, colour, kind))
    return _frame(series, x={"type": "time"}, y={"name": "milliseconds"})


def bounds(lines: Sequence[Data]) -> dict[str, Any]:
    """Return the tests' evidence against the candidate by its requests, and its bound."""
    series = [
        _line(
            str(TESTS.get(line["name"], line["name"])),
            line["points"],
            PALETTE[place % len(PALETTE)],
            "solid" if place < len(PALETTE) else "dashed",
        )
        for place, line in enumerate(lines)
    ]
    if series:
        bound = lines[0]["bound"]
        series[0]["markLine"] = {
            "silent": True,
            "symbol": "none",
            "lineStyle": {"color": _BAD, "type": "dashed", "width": 2},
            "label": {"formatter": "rolls back here", "position": "insideEndBottom", "color": _BAD},
            "data": [{"yAxis": round(bound, 3)}],
        }
        top = max([bound, *(line["peak"] for line in lines)])
        low, high = _LEAST, round(min(top, 3 * bound) + 0.5)
        y = {"name": "evidence, powers of ten", "min": low, "max": high}
        y["axisLabel"] = {"color": _INK, ":formatter": _FLOOR}
        for one, line in zip(series, lines, strict=True):
            one["data"] = [[x, max(low, min(v, 3 * bound))] for x, v in line["points"]]
        return _frame(series, x={"type": "value", "name": "candidate requests"}, y=y)
    return _frame([], x={"type": "value"}, y={})


def days(rows: Sequence[Data], fields: Sequence[tuple[str, str]], unit: str) -> dict[str, Any]:
    """Return stacked bars by day: `fields` are keys of the rows and what they are called."""
    found = [
        {
            "name": name, "type": "bar", "stack": "all", "barMaxWidth": 28,
            "itemStyle": {"color": PALETTE[place % len(PALETTE)]},
            "data": [row[key] for row in rows],
        }
        for place, (key, name) in enumerate(fields)
    ]  # fmt: skip
    labels = [str(row["day"]) for row in rows]
    return _frame(found, x={"type": "category", "data": labels}, y={"name": unit})


def pairs(rows: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    """Return two bars a row, before and now, as shares of 1."""
    series = [
        {
            "name": name, "type": "bar", "barMaxWidth": 12, "itemStyle": {"color": colour},
            "data": [round(float(row[place]) * 100, 2) for row in rows],
        }
        for place, name, colour in ((1, "before", _INK), (2, "now", _CANDIDATE))
    ]  # fmt: skip
    options = _frame(series, x={"type": "value", "name": "%"}, y={})
    options["yAxis"] = {
        "type": "category", "data": [row[0] for row in rows], "inverse": True,
        "axisLabel": {"color": _INK, "width": 240, "overflow": "truncate"},
    }  # fmt: skip
    options["grid"] = {"left": 260, "right": 40, "top": 32, "bottom": 44}
    return options


def _frame(series: Sequence[Data], *, x: Data, y: Data) -> dict[str, Any]:
    axis = {
        "axisLabel": {"color": _INK},
        "nameTextStyle": {"color": _INK},
        "axisLine": {"lineStyle": {"color": _LINE}},
        "splitLine": {"lineStyle": {"color": _LINE}},
    }
    below = {**axis, "splitLine": {"show": False}, "nameLocation": "middle", "nameGap": 28, **x}
    return {
        "animation": False,
        "backgroundColor": "transparent",
        "textStyle": {"color": _INK},
        "tooltip": {"trigger": "axis", "renderMode": "richText", "confine": True},
        "legend": {"type": "scroll", "top": 0, "icon": "roundRect", "textStyle": {"color": _INK}},
        "grid": {"left": 56, "right": 24, "top": 48, "bottom": 44},
        "xAxis": below,
        "yAxis": {"type": "value", "scale": False, **axis, **y},
        "series": list(series),
    }


def _line(
    name: str, points: Sequence[Sequence[float | None]], colour: str, kind: str = "solid"
) -> dict[str, Any]:
    return {
        "name": name,
        "type": "line",
        "showSymbol": False,
        "connectNulls": True,
        "itemStyle": {"color": colour},
        "lineStyle": {"color": colour, "type": kind, "width": 2},
        "data": [list(point) for point in points],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
