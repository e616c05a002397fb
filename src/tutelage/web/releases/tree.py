"""Where a release or an answer comes from: a drawn tree, and the same as a list to read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from tutelage.web.parts.cells import named
from tutelage.web.parts.text import text
from tutelage.web.parts.theme import PALETTE

_COLOURS = {
    "record": PALETTE[3],
    "release": PALETTE[0],
    "adapter": PALETTE[1],
    "dataset": PALETTE[2],
    "evaluation": PALETTE[4],
    "people": PALETTE[5],
}
_EDGE = "#7c8592"  # seen on light and on dark
_LINE = 88  # pixels of height a line of outputs takes
_STEP = 180  # pixels from an output to what it was made from
_TOP, _BOTTOM = 60, 24  # pixels above the highest output, for its label, and below the lowest
_FORK = 0.9  # how far towards the outputs to the right the line turns
_LABEL = 46  # characters of a label in the drawing; the list has all of it
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[:\d.]*\S*")


@dataclass
class _Spot:
    """An output on the drawing: how many steps from the root, on which line from the top."""

    node: Mapping[str, Any]
    depth: int
    line: float
    below: list[_Spot]

    def all(self) -> Iterator[_Spot]:
        """Go through this and everything it was made from."""
        yield self
        for spot in self.below:
            yield from spot.all()

    def move(self, lines: float) -> None:
        """Move this and everything it was made from down."""
        for spot in self.all():
            spot.line += lines


def lineage(tree: Mapping[str, Any]) -> None:
    """Draw the tree with what it was made from to the right, and below it as a list."""
    root = _placed(tree)
    root.move(-min(spot.line for spot in root.all()))
    spots = list(root.all())
    lines, depth = max(spot.line for spot in spots), max(spot.depth for spot in spots)
    with ui.element("div").classes("tt-table-scroll w-full") as frame:
        named(frame.props("tabindex=0 role=region"), "Lineage, drawn")
        plot = ui.echart(_options(spots, lines, depth), renderer="svg").classes("tt-chart")
        height = lines * _LINE + _TOP + _BOTTOM
        plot.style(f"height: {height:.0f}px; min-width: {(depth + 1) * _STEP + 20}px")
        named(plot.props("role=img"), f"Lineage of {_words(tree)}; the list below says the same")
    with ui.element("details").classes("tt-chart-text"):
        text("summary", "Lineage as a list")
        with ui.element("ul").classes("list-disc pl-6"):
            _item(tree)


def _placed(node: Mapping[str, Any], depth: int = 0) -> _Spot:
    """Return the spots of a tree, as close to each other as their labels let them."""
    below = [_placed(parent, depth + 1) for parent in _below(node)]
    lowest: dict[int, float] = {}
    for part in below:
        inside = sorted(part.all(), key=lambda spot: -spot.line)
        highest = {spot.depth: spot.line for spot in inside}
        gaps = [lowest[at] + 1 - line for at, line in highest.items() if at in lowest]
        part.move(max(gaps, default=0.0))
        lowest |= {spot.depth: spot.line for spot in reversed(inside)}
    line = (below[0].line + below[-1].line) / 2 if below else 0.0
    return _Spot(node, depth, line, below)


def _options(spots: list[_Spot], lines: float, depth: int) -> dict[str, Any]:
    edges = [_elbow(spot, part) for spot in spots for part in spot.below]
    return {
        "animation": False,
        "tooltip": {"show": False},
        "grid": {"left": 16, "right": 168, "top": _TOP, "bottom": _BOTTOM},
        "xAxis": {"type": "value", "show": False, "min": 0, "max": max(depth, 1)},
        "yAxis": {"type": "value", "show": False, "min": 0, "max": max(lines, 0.01),
                  "inverse": True},
        "series": [
            {"type": "lines", "coordinateSystem": "cartesian2d", "polyline": True, "silent": True,
             "data": [{"coords": coords} for coords in edges],
             "lineStyle": {"color": _EDGE, "width": 1.5, "opacity": 1}},
            {"type": "scatter", "silent": True, "symbolSize": 12, "clip": False,
             "data": [_dot(spot) for spot in spots],
             "itemStyle": {"opacity": 1},
             "label": {"show": True, "formatter": "{b}", "position": "top", "align": "left",
                       "verticalAlign": "bottom", "distance": 8, "offset": [-6, 0],
                       "fontSize": 12, "lineHeight": 15, "width": 165, "overflow": "break",
                       "textBorderWidth": 0, "textBorderColor": "transparent"}},
        ],
    }  # fmt: skip


def _elbow(start: _Spot, end: _Spot) -> list[list[float]]:
    turn = start.depth + _FORK
    return [[start.depth, start.line], [turn, start.line], [turn, end.line], [end.depth, end.line]]


def _dot(spot: _Spot) -> dict[str, Any]:
    return {
        "name": _label(spot.node),
        "value": [spot.depth, spot.line],
        "itemStyle": {"color": _COLOURS.get(str(spot.node["kind"]), "#808890")},
    }


def _below(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    files = [
        {"kind": "file", "hash": "", "facts": {"name": name}} for name in node.get("sources", ())
    ]
    return [*node.get("parents", ()), *files]


def _label(node: Mapping[str, Any]) -> str:
    said = _cut(_said(node))
    return f"{node['kind']}\n{said}" if said else str(node["kind"])


def _said(node: Mapping[str, Any]) -> str:
    """Return the first fact of a node, or how its hash begins."""
    facts = (str(value) for value in (node.get("facts") or {}).values() if value)
    return _TIME.sub(r"\1 \2", next(facts, "")) or str(node.get("hash") or "")[:12]


def _cut(words: str) -> str:
    """Return words on one line, those that are too many left out."""
    line = " ".join(words.split())
    if len(line) <= _LABEL:
        return line
    return line[:_LABEL].rpartition(" ")[0].rstrip(",;:") + "…" if " " in line[:_LABEL] else line


def _words(node: Mapping[str, Any]) -> str:
    digest = str(node.get("hash") or "")
    shown = digest if node["kind"] == "record" else digest[:12]
    facts = "; ".join(str(value) for value in (node.get("facts") or {}).values() if value)
    return " ".join(part for part in (str(node["kind"]), shown, facts) if part)


def _item(node: Mapping[str, Any]) -> None:
    with ui.element("li"):
        text("span", _words(node))
        below = _below(node)
        if below:
            with ui.element("ul").classes("list-disc pl-6"):
                for parent in below:
                    _item(parent)
