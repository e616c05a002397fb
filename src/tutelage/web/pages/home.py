"""The first page: what needs this person now, by role, and the next command of an empty project."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui

from tutelage.web.parts.layout import card, chip, empty, heading
from tutelage.web.parts.text import text
from tutelage.web.parts.words import ago, capital, percent
from tutelage.web.view import Page, View
from tutelage.workflows.attention import Need, NextStep, attention, next_step

_EVERY_S = 5.0
_GROUPS = (
    ("Running and serving", ("alert", "rollout", "turn")),
    ("For you to teach", ("label", "decide", "compare")),
    ("Building", ("prompt", "job", "verdict")),
)
_SIGNS = {"alert": "notifications", "rollout": "alt_route", "turn": "autorenew",
          "label": "label", "decide": "gavel", "compare": "balance",
          "prompt": "edit_note", "job": "hourglass_top", "verdict": "fact_check"}  # fmt: skip
_WORDS = {"bad": "failed", "warn": "waits for a person"}
_WORDS_OF = {
    "alert": {"bad": "error", "warn": "warning"},
    "verdict": {"good": "pass", "bad": "fail", "warn": "not enough evidence"},
}


async def show(view: View) -> None:
    """Draw what waits, and look again every few seconds."""
    heading("What needs you now")
    box = ui.element("div").classes("tt-stack")
    last: list[object] = []

    async def refresh() -> None:
        needs = await view.call(attention, view.context, view.user.name, _roles(view))
        step = await view.call(next_step, view.context)
        if last == [needs, step]:
            return
        last[:] = [needs, step]
        box.clear()
        with box:
            _draw(needs, step)

    await refresh()
    view.every(_EVERY_S, refresh)


def _roles(view: View) -> frozenset[str]:
    return view.user.roles


def _draw(needs: Sequence[Need], step: NextStep | None) -> None:
    if step is not None:
        with card("Next step"):
            text("p", step.text)
            text("code", step.command, "tt-command")
    for title, kinds in _GROUPS:
        found = [need for need in needs if need.kind in kinds]
        if found:
            with card(title), ui.element("ul").classes("tt-needs"):
                for need in found:
                    _need(need)
    if not needs and step is None:
        empty("Nothing waits for you. What comes up is shown here by itself.")


def _need(need: Need) -> None:
    with ui.element("li"):
        ui.icon(_SIGNS[need.kind]).props('aria-hidden="true"').classes(f"tt-sign-{need.level}")
        with ui.element("div").classes("tt-need-text"):
            ui.link(capital(need.text), need.path)
            if need.progress is not None:
                text("span", percent(need.progress, 0), "tt-muted")
            if need.since is not None:
                text("span", ago(need.since), "tt-muted")
        if words := _WORDS_OF.get(need.kind, _WORDS).get(need.level):
            chip(words, need.level)


PAGES = (Page("/", "Home", show, icon="home"),)
