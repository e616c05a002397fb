"""Cards, headings, chips, facts, empty states and questions. Every text is text, never HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from nicegui import ui

from tutelage.web.parts.text import text
from tutelage.web.parts.words import capital, key_name

Kind = Literal["good", "bad", "warn", "info", "idle"]
_ICONS = {"good": "check_circle", "bad": "error", "warn": "warning", "info": "info", "idle": ""}


@dataclass(frozen=True)
class Action:
    """Something to press: `do` is a handler, or the path of a page.

    `weight` is main (one a page), plain or danger. `key` is only shown; bind it with view.keys.
    """

    text: str
    do: Callable[[], object] | str
    icon: str = ""
    weight: Literal["main", "plain", "danger"] = "plain"
    key: str = ""


def button(action: Action) -> ui.button:
    """Add the button (or, for a path, the link that looks like one) of an action."""
    color = "negative" if action.weight == "danger" else "primary"
    made = ui.button(action.text, icon=action.icon or None, color=color)
    if action.weight != "main":
        made.props("outline")
    if isinstance(action.do, str):
        made.props["href"] = action.do
    else:
        made.on_click(action.do)
    if action.key:
        with made:
            text("kbd", key_name(action.key), "tt-key").props('aria-hidden="true"')
    return made


def heading(title: str, *actions: Action, note: str = "") -> ui.row:
    """Begin a page: its title as the one h1, what can be done at the right, a note below."""
    with ui.row().classes("tt-heading") as row:
        with ui.column().classes("tt-heading-text"):
            text("h1", title)
            if note:
                text("p", note, "tt-muted")
        if actions:
            with ui.row().classes("tt-actions"):
                for action in actions:
                    button(action)
    return row


@contextmanager
def card(title: str = "", *actions: Action, classes: str = "") -> Iterator[ui.element]:
    """A box with an h2 and what is drawn inside: `with card("Label coverage"): …`."""
    with ui.element("section").classes(f"tt-card {classes}".strip()) as box:
        if title:
            with ui.row().classes("tt-card-head"):
                text("h2", title)
                if actions:
                    with ui.row().classes("tt-actions"):
                        for action in actions:
                            button(action)
        yield box


@contextmanager
def grid(least: str = "18rem") -> Iterator[ui.element]:
    """Boxes side by side, as many as fit: each at least `least` wide."""
    with ui.element("div").classes("tt-grid").style(f"--tt-least: {least}") as box:
        yield box


def empty(words: str, command: str | None = None, action: Action | None = None) -> ui.element:
    """Say what is missing and what to do next: a command to type, or a button."""
    with ui.element("div").classes("tt-empty") as box:
        text("p", words)
        if command:
            text("code", command, "tt-command")
        if action:
            button(action)
    return box


def chip(words: str, kind: Kind = "idle") -> ui.element:
    """A short state in its colour, with a sign beside it so that colour alone says nothing."""
    with ui.element("span").classes(f"tt-chip tt-{kind}") as box:
        if _ICONS[kind]:
            ui.icon(_ICONS[kind]).props('aria-hidden="true"')
        text("span", words, "" if capital(words) == words else "tt-begins")
    return box


def facts(pairs: Iterable[tuple[str, object]]) -> ui.element:
    """Names with values, one a line. A value may be a function that draws it."""
    with ui.element("dl").classes("tt-facts") as box:
        for name, value in pairs:
            text("dt", capital(name))
            if callable(value):
                with ui.element("dd"):
                    value()
            else:
                text("dd", "–" if value is None else value)
    return box


def figure(value: str, name: str, kind: Kind = "idle") -> ui.element:
    """One big number with its name below."""
    with ui.element("div").classes(f"tt-figure tt-figure-{kind}") as box:
        text("div", value, "tt-figure-value")
        text("div", name, "tt-muted")
    return box


def notice(words: str, kind: Kind = "info") -> ui.element:
    """A sentence that stands out of the text around it."""
    with ui.element("div").classes(f"tt-notice tt-{kind}") as box:
        if _ICONS[kind]:
            ui.icon(_ICONS[kind]).props('aria-hidden="true"')
        text("p", capital(words))
    return box


async def confirm(question: str, *, yes: str = "Yes", danger: bool = False) -> bool:
    """Ask before something that is hard to undo; closing the question means no."""
    with ui.dialog() as dialog, ui.card().classes("tt-card tt-question"):
        dialog.props["aria-label"] = question
        text("p", question)
        with ui.row().classes("tt-actions"):
            ui.button("Cancel", on_click=lambda: dialog.submit(False)).props("flat autofocus")
            color = "negative" if danger else "primary"
            ui.button(yes, color=color, on_click=lambda: dialog.submit(True))
    answer = await dialog
    dialog.delete()
    return bool(answer)
