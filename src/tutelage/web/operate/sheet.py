"""A small table all of whose rows are there; a cell is text, or a function that draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from nicegui import ui

from tutelage.web.parts.table import number_columns
from tutelage.web.parts.text import hidden, text
from tutelage.web.parts.words import capital

Cell = str | Callable[[], object]


def sheet(headers: Sequence[str], rows: Iterable[Sequence[Cell]], *, name: str) -> ui.element:
    """Draw the table; `name` is read before it. The first cell of a row heads it."""
    lines = list(rows)
    right = number_columns(lines)
    frame = ui.element("div").classes("tt-table-scroll w-full").props("tabindex=0 role=region")
    frame.props["aria-label"] = name
    with frame, ui.element("table").classes("tt-table"):
        with ui.element("caption"):
            hidden(name)
        with ui.element("thead"), ui.element("tr"):
            for place, header in enumerate(headers):
                head = text("th", capital(header), "tt-number" if place in right else "")
                head.props('scope="col"')
        with ui.element("tbody"):
            for row in lines:
                with ui.element("tr"):
                    for place, cell in enumerate(row):
                        drawn = _draw(cell, heads=place == 0)
                        drawn.classes("tt-number" if place in right else "")
    return frame


def _draw(cell: Cell, *, heads: bool) -> ui.element:
    with ui.element("th").props('scope="row"') if heads else ui.element("td") as place:
        if callable(cell):
            cell()
        else:
            text("span", cell)
    return place
