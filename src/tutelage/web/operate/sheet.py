"""A small table all of whose rows are there; a cell is text, or a function that draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from nicegui import ui

from tutelage.web.parts.text import hidden, text

Cell = str | Callable[[], object]


def sheet(headers: Sequence[str], rows: Iterable[Sequence[Cell]], *, name: str) -> ui.element:
    """Draw the table; `name` is read before it. The first cell of a row heads it."""
    frame = ui.element("div").classes("tt-table-scroll w-full").props("tabindex=0 role=region")
    frame.props["aria-label"] = name
    with frame, ui.element("table").classes("tt-table"):
        with ui.element("caption"):
            hidden(name)
        with ui.element("thead"), ui.element("tr"):
            for header in headers:
                text("th", header).props('scope="col"')
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    for place, cell in enumerate(row):
                        _draw(cell, heads=place == 0)
    return frame


def _draw(cell: Cell, *, heads: bool) -> None:
    with ui.element("th").props('scope="row"') if heads else ui.element("td") as place:
        if heads:
            place.style("font-size: inherit; color: inherit")
        if callable(cell):
            cell()
        else:
            text("span", cell)
