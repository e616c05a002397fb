"""Where a release or an answer comes from: a drawn tree, and the same as a list to read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nicegui import ui

from tutelage.web.parts.cells import named
from tutelage.web.parts.text import text
from tutelage.web.parts.theme import PALETTE
from tutelage.web.parts.words import short

_COLOURS = {
    "record": PALETTE[3],
    "release": PALETTE[0],
    "adapter": PALETTE[1],
    "dataset": PALETTE[2],
    "evaluation": PALETTE[4],
    "people": PALETTE[5],
}
_LINE = 72  # pixels of height a leaf takes
_STEP = 180  # pixels from an output to what it was made from
_LABEL = 48  # characters of a label in the drawing; the list has all of it
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[:\d.]*\S*")


def lineage(tree: Mapping[str, Any]) -> None:
    """Draw the tree with what it was made from to the right, and below it as a list."""
    depth, leaves = _size(tree)
    options = {
        "animation": False,
        "tooltip": {"show": False},
        "series": [
            {
                "type": "tree",
                "data": [_node(tree)],
                "orient": "LR",
                "left": 16,
                "right": 168,
                "top": 56,
                "bottom": 8,
                "symbol": "circle",
                "symbolSize": 12,
                "expandAndCollapse": False,
                "edgeShape": "polyline",
                "edgeForkPosition": "90%",
                "label": {"position": "top", "align": "left", "verticalAlign": "bottom",
                          "distance": 8, "offset": [-6, 0], "fontSize": 12, "lineHeight": 15,
                          "width": 165, "overflow": "break",
                          "textBorderWidth": 0, "textBorderColor": "transparent"},
                "lineStyle": {"width": 1.5, "opacity": 0.5},
            }
        ],
    }  # fmt: skip
    with ui.element("div").classes("tt-table-scroll w-full") as frame:
        named(frame.props("tabindex=0 role=region"), "Lineage, drawn")
        plot = ui.echart(options, renderer="svg").classes("tt-chart")
        plot.style(f"height: {leaves * _LINE + 40}px; min-width: {depth * _STEP + 20}px")
        named(plot.props("role=img"), f"Lineage of {_words(tree)}; the list below says the same")
    with ui.element("details").classes("tt-chart-text"):
        text("summary", "Lineage as a list")
        with ui.element("ul").classes("list-disc pl-6"):
            _item(tree)


def _node(node: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": _label(node),
        "itemStyle": {"color": _COLOURS.get(str(node["kind"]), "#808890")},
        "children": [_node(parent) for parent in _below(node)],
    }


def _below(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    files = [
        {"kind": "file", "hash": "", "facts": {"name": name}} for name in node.get("sources", ())
    ]
    return [*node.get("parents", ()), *files]


def _label(node: Mapping[str, Any]) -> str:
    said = short(_said(node), _LABEL)
    return f"{node['kind']}\n{said}" if said else str(node["kind"])


def _said(node: Mapping[str, Any]) -> str:
    facts = [str(value) for value in (node.get("facts") or {}).values() if value]
    return _TIME.sub(r"\1 \2", "; ".join(facts)) or str(node.get("hash") or "")[:12]


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


def _size(node: Mapping[str, Any]) -> tuple[int, int]:
    """Return how deep a tree is and how many leaves it has."""
    sizes = [_size(parent) for parent in _below(node)]
    if not sizes:
        return 1, 1
    return 1 + max(depth for depth, _ in sizes), sum(leaves for _, leaves in sizes)
