"""A plain table whose cells are text or parts of the page, and the buttons that turn its pages.

It holds what it is given and asks for nothing: which rows those are, its caller decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from nicegui import ui

from tutelage.web.parts.table import number_columns
from tutelage.web.parts.text import text

RULE = "border-top: 1px solid var(--tt-line)"
Cell = str | Callable[[], object]
Named = TypeVar("Named", bound=ui.element)


def cell_table(
    headers: Sequence[str], rows: Iterable[Sequence[Cell]], *, name: str, whole: bool = False
) -> ui.element:
    """Draw a table; the first cell of a row heads it. It scrolls by itself where it is too wide.

    With `whole` no line of a cell is broken.
    """
    lines = list(rows)
    right = number_columns(lines)
    frame = ui.element("div").classes("tt-table-scroll w-full")
    named(frame.props("tabindex=0 role=region"), name)
    with frame, ui.element("table").classes("tt-table") as table:
        if whole:
            table.classes("whitespace-nowrap")
        with ui.element("thead"), ui.element("tr"):
            for place, header in enumerate(headers):
                text("th", header, "tt-number" if place in right else "").props("scope=col")
        with ui.element("tbody"):
            for row in lines:
                with ui.element("tr"):
                    for place, cell in enumerate(row):
                        drawn = _cell(cell, heads=place == 0)
                        drawn.classes("tt-number" if place in right else "")
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


def _cell(cell: Cell, *, heads: bool) -> ui.element:
    with ui.element("th").props("scope=row") if heads else ui.element("td") as place:
        if callable(cell):
            cell()
        else:
            text("span", cell)
    return place
