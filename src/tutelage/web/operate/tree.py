"""Where an answer comes from, as nested lists: release, prompt, adapter, data, people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from tutelage.web.parts.layout import chip
from tutelage.web.parts.text import text

_DEEPEST = 12


def tree(node: Mapping[str, Any], depth: int = 0) -> None:
    """Draw a node of `release_lineage.trace` with all that it was made from."""
    with ui.element("ul").classes("list-none m-0").style(f"padding-left: {1.5 if depth else 0}rem"):
        _node(node, depth)


def _node(node: Mapping[str, Any], depth: int) -> None:
    with ui.element("li").classes("py-1"):
        with ui.row().classes("items-center gap-2"):
            chip(str(node["kind"]), "info" if depth == 0 else "idle")
            facts = dict(node["facts"])
            name = facts.pop("name", None) or facts.pop("summary", None) or node["hash"][:12]
            text("span", name)
            if node["hash"] and name != node["hash"][:12]:
                text("span", node["hash"][:12], "tt-muted")
        for key, value in facts.items():
            text("div", f"{key}: {value}", "tt-muted text-sm")
        for source in node["sources"]:
            text("div", source, "tt-muted text-sm")
        if depth < _DEEPEST:
            for parent in node["parents"]:
                tree(parent, depth + 1)
