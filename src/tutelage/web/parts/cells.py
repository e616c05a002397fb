"""A plain table whose cells are text or parts of the page, and the buttons that turn its pages.

It holds what it is given and asks for nothing: which rows those are, its caller decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from nicegui import ui

from tutelage.web.parts.text import text

RULE = "border-top: 1px solid var(--tt-line)"
Cell = str | Callable[[], object]
Named = TypeVar("Named", bound=ui.element)


def cell_table(
    headers: Sequence[str], rows: Iterable[Sequence[Cell]], *, name: str, whole: bool = False
) -> ui.element:
    """Draw a table; the first cell of a row heads it. It scrolls by itself where it is too wide.

    With `whole` cells no line is broken.
    """
    frame = ui.element("div").classes("tt-table-scroll w-full")
    named(frame.props("tabindex=0 role=region"), name)
    with frame, ui.element("table").classes("tt-table") as table:
        if whole:
            table.classes("whitespace-nowrap")
        with ui.element("thead"), ui.element("tr"):
            for header in headers:
                text("th", header).props("scope=col")
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    for place, cell in enumerate(row):
                        _cell(cell, heads=place == 0)
    return frame


def pager(total: int, start: int, size: int, turn: Callable[[int], Awaitable[None]]) -> None:
    """Draw which rows are shown and the buttons for those before and after; nothing if all are."""
    if total <= size and start == 0:
        return
    last = min(total, start + size)
    with ui.row().classes("tt-pager"):
        before = ui.button(icon="chevron_left", on_click=lambda: turn(max(0, start - size)))
        before.props('flat round dense aria-label="rows before"').set_enabled(start > 0)
        text("span", f"{start + 1:,}–{last:,} of {total:,}", "tt-muted").props("role=status")
        after = ui.button(icon="chevron_right", on_click=lambda: turn(start + size))
        after.props('flat round dense aria-label="rows after"').set_enabled(last < total)


def named(element: Named, name: str) -> Named:
    """Give an element the name that a screen reader reads; any text is safe here."""
    element.props["aria-label"] = name
    return element


def _cell(cell: Cell, *, heads: bool) -> None:
    with ui.element("th").props("scope=row") if heads else ui.element("td"):
        if callable(cell):
            cell()
        else:
            text("span", cell)
