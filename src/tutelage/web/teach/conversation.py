"""The turns before an answer, and answers beside each other. All of it is drawn as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from tutelage.web.parts.text import passage, text

_ROLES = {"system": "Instructions", "user": "Asked", "assistant": "Answered", "tool": "Tool"}


def conversation(messages: Sequence[Mapping[str, Any]]) -> ui.element:
    """Draw the turns, each with who speaks; instructions are folded away behind their name.

    A single question needs no name.
    """
    alone = sum(turn["role"] != "system" for turn in messages) == 1
    with ui.column().classes("w-full gap-2") as box:
        for turn in messages:
            role, content = str(turn["role"]), str(turn["content"])
            name = _ROLES.get(role, role)
            if role == "system" and len(messages) > 1:
                with ui.expansion(name).classes("w-full").props("dense"):
                    passage(content)
                continue
            with ui.column().classes("w-full gap-0"):
                if not alone:
                    text("div", name, "tt-muted")
                passage(content)
    return box


def side_by_side() -> ui.element:
    """Return a box whose parts stand beside each other where there is room for it."""
    return ui.element("div").classes("tt-grid w-full").style("--tt-least: 17rem")
