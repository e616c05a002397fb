"""Draws what stands beside the item: how far the person is, the guideline, their last answers."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from tutelage.web.label.desk import Desk
from tutelage.web.parts import words
from tutelage.web.parts.layout import Action, button, card, empty
from tutelage.web.parts.text import hidden, passage, text
from tutelage.web.teach.looks import progress_bar
from tutelage.workflows.data.experts_queue import Said

_SHOWN = 6  # last answers


class SidePart:
    """The right of the desk."""

    def __init__(self, desk: Desk, guideline: dict[str, Any] | None) -> None:
        self._desk = desk
        with ui.element("aside").classes("tt-desk-side").props('aria-label="Beside the item"'):
            with card("Your progress"):
                self._progress = ui.column().classes("w-full gap-2")
            with card("Guideline", Action("Versions", "/guidelines")) as self._guide:
                _guide(guideline)
            with card("Your last answers"):
                self._last = ui.column().classes("w-full gap-0")

    def draw(self) -> None:
        """Draw progress and last answers anew."""
        self.draw_progress()
        self._last.clear()
        with self._last:
            if not self._desk.last:
                text("p", "What you answer stands here, to look at it again.", "tt-muted")
            for one in self._desk.last[:_SHOWN]:
                self._entry(one)

    def draw_progress(self) -> None:
        """Draw how far the person is."""
        queue = self._desk.queue
        done, left = queue.done + queue.skipped, queue.left + queue.anyone
        self._progress.clear()
        with self._progress:
            progress_bar(done, done + left, "Items you went through")
            parts = [words.count(queue.done, "answer")]
            if queue.skipped:
                parts.append(f"{queue.skipped:,} skipped")
            parts.append(f"{queue.left:,} left for you")
            if queue.anyone:
                parts.append(f"{queue.anyone:,} for whoever is free")
            text("p", " · ".join(parts)).props('role="status"')
            text("p", f"{words.count(queue.today, 'answer')} in the last 24 hours", "tt-muted")

    def toggle_guide(self) -> None:
        """Show the guideline, or put it away."""
        self._guide.set_visibility(not self._guide.visible)

    def _entry(self, one: Said) -> None:
        said = "skipped" if one.skipped else one.label or words.short(one.answer or "", 60)
        with ui.element("button").props('type="button"').classes("tt-said") as made:
            hidden("Answer again: ")
            text("span", words.short(one.text, 70))
            text("span", f"{said} · {words.ago(one.at)}", "tt-muted")
        made.on("click", self._desk.does(partial(self._desk.open, one.item)))


def _guide(found: dict[str, Any] | None) -> None:
    if found is None:
        empty("There is no guideline yet.")
        button(Action("Write one", "/guidelines", "edit"))
        return
    text("p", f"Version {found['version']}, {found['at'][:10]}", "tt-muted")
    box = ui.element("div").classes("tt-guide").props('role="region" tabindex="0"')
    box.props["aria-label"] = "Guideline"
    with box:
        passage(found["text"])
