"""A table of many rows, of which the server sends one page at a time. Cells are text."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from nicegui import ui

from tutelage.web.parts.layout import Kind, chip, empty
from tutelage.web.parts.text import hidden, text
from tutelage.web.parts.words import capital, is_number, number

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Chip:
    """A cell's value that is shown as a chip."""

    text: str
    kind: Kind = "idle"


@dataclass(frozen=True)
class Column:
    """One column: the field it shows and its heading. Numbers stand at the right.

    `show(row)` makes the cell's value of a row, or draws the cell itself and returns None.
    """

    name: str
    title: str
    kind: Literal["text", "number"] = "text"
    sortable: bool = False
    show: Callable[[Row], object] | None = None
    wide: bool = False


@dataclass(frozen=True)
class Query:
    """Which rows are asked for. `order` is a column's name, or None for the usual order."""

    offset: int
    limit: int
    order: str | None = None
    descending: bool = False


@dataclass(frozen=True)
class Rows:
    """One page of rows, and how many there are in all (None: not counted; `more` says it)."""

    items: Sequence[Row]
    total: int | None = None
    more: bool = False


Source = Callable[[Query], Awaitable[Rows]]


class Table:
    """A drawn table. `await load()` draws its rows anew; the first load is the caller's too."""

    def __init__(
        self,
        columns: Sequence[Column],
        source: Source,
        *,
        key: str,
        on_open: Callable[[Row], object] | str | None,
        nothing: str | Callable[[], str],
        limit: int,
    ) -> None:
        self._columns, self._source, self._key = columns, source, key
        self._open, self._nothing = on_open, nothing
        self._query = Query(0, limit)
        self._box = ui.element("div").classes("tt-table-box")

    async def load(self) -> None:
        """Ask for the rows of the page that is shown, and draw them."""
        rows = await self._source(self._query)
        if not rows.items and self._query.offset:
            self._query = _at(self._query, 0)
            rows = await self._source(self._query)
        self._box.clear()
        with self._box:
            if not rows.items:
                empty(self._nothing() if callable(self._nothing) else self._nothing)
                return
            scroll = ui.element("div").classes("tt-table-scroll").props("tabindex=0")
            with scroll, ui.element("table").classes("tt-table"):
                self._head()
                with ui.element("tbody"):
                    for row in rows.items:
                        self._row(row)
            self._pager(rows)

    def _head(self) -> None:
        with ui.element("thead"), ui.element("tr"):
            for column in self._columns:
                with ui.element("th").props('scope="col"') as cell:
                    if column.kind == "number":
                        cell.classes("tt-number")
                    if not column.sortable:
                        text("span", column.title)
                        continue
                    self._sorter(column, cell)

    def _sorter(self, column: Column, cell: ui.element) -> None:
        ordered = self._query.order == column.name
        sign = ""
        if ordered:
            cell.props["aria-sort"] = "descending" if self._query.descending else "ascending"
            sign = " ↓" if self._query.descending else " ↑"

        async def sort() -> None:
            turned = ordered and not self._query.descending
            self._query = Query(0, self._query.limit, column.name, turned)
            await self.load()

        text("button", column.title + sign, "tt-sort").props('type="button"').on("click", sort)

    def _row(self, row: Row) -> None:
        with ui.element("tr") as line:
            line.props["data-row"] = str(row[self._key])
            for place, column in enumerate(self._columns):
                with ui.element("td") as cell:
                    if column.kind == "number":
                        cell.classes("tt-number")
                    if column.wide:
                        cell.classes("tt-wide")
                    self._cell(column, row, opens=place == 0 and self._open is not None)

    def _cell(self, column: Column, row: Row, *, opens: bool) -> None:
        value = column.show(row) if column.show else row.get(column.name)
        if opens:
            self._opener(row, "open" if value is None else str(value))
        elif isinstance(value, Chip):
            chip(value.text, value.kind)
        elif column.show is not None and value is None:
            return
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            text("span", number(value))
        else:
            text("span", "–" if value is None else value)

    def _opener(self, row: Row, words: str) -> None:
        if isinstance(self._open, str):
            ui.link(words, self._open.format_map(_Quoted(row)))
            return
        opened = self._open
        assert opened is not None

        async def press() -> None:
            result = opened(row)
            if inspect.isawaitable(result):
                await result

        text("button", words, "tt-link").props('type="button"').on("click", press)

    def _pager(self, rows: Rows) -> None:
        query, shown = self._query, len(rows.items)
        last = query.offset + shown
        more = rows.more or (rows.total is not None and last < rows.total)
        if not more and query.offset == 0:
            return
        of = "" if rows.total is None else f" of {rows.total:,}"
        with ui.row().classes("tt-pager"):
            text("span", f"{query.offset + 1:,}–{last:,}{of}", "tt-muted").props('role="status"')
            self._step("chevron_left", "Earlier rows", -query.limit, query.offset > 0)
            self._step("chevron_right", "Later rows", query.limit, more)

    def _step(self, icon: str, name: str, by: int, possible: bool) -> None:
        async def go() -> None:
            self._query = _at(self._query, max(0, self._query.offset + by))
            await self.load()

        made = ui.button(icon=icon, on_click=go).props("flat dense round")
        made.props["aria-label"] = name
        made.set_enabled(possible)


async def table(
    columns: Sequence[Column],
    rows: Source | Sequence[Row],
    *,
    key: str,
    on_open: Callable[[Row], object] | str | None = None,
    nothing: str | Callable[[], str] = "Nothing is here yet.",
    limit: int = 25,
) -> Table:
    """Draw a table. `rows` are all of them, or a function that gives the rows of a Query.

    `on_open` makes the first cell open a row: the path of a page ("/runs/{id}", values quoted), or
    a handler that gets the row. `key` is the field that tells rows apart.
    """
    source = rows if callable(rows) else _in_memory(rows)
    made = Table(columns, source, key=key, on_open=on_open, nothing=nothing, limit=limit)
    await made.load()
    return made


def _in_memory(rows: Sequence[Row]) -> Source:
    async def give(query: Query) -> Rows:
        found = list(rows)
        if query.order is not None:
            name = query.order
            found.sort(key=lambda row: (row.get(name) is None, row.get(name)))
            if query.descending:
                found.reverse()
        return Rows(found[query.offset : query.offset + query.limit], len(found))

    return give


def _at(query: Query, offset: int) -> Query:
    return Query(offset, query.limit, query.order, query.descending)


class _Quoted(dict[str, Any]):
    def __init__(self, row: Row) -> None:
        super().__init__(row)

    def __getitem__(self, name: str) -> str:
        return quote(str(super().__getitem__(name)), safe="")


def number_columns(rows: Sequence[Sequence[object]]) -> set[int]:
    """Return the places of the columns that hold numbers alone; a row's first cell names it."""
    found = set()
    for place, column in enumerate(zip(*rows, strict=False)):
        cells = ["–" if cell is None or callable(cell) else str(cell) for cell in column]
        drawn = any(callable(cell) for cell in column)
        if place and not drawn and set(cells) != {"–"} and all(map(is_number, cells)):
            found.add(place)
    return found


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, name: str) -> None:
    """Add a small table of text, all of it at once; `name` is read before it."""
    right = number_columns(rows)
    with ui.element("table").classes("tt-table"):
        with ui.element("caption"):
            hidden(name)
        with ui.element("thead"), ui.element("tr"):
            for place, title in enumerate(columns):
                head = text("th", capital(title), "tt-number" if place in right else "")
                head.props('scope="col"')
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    for place, value in enumerate(row):
                        said = "–" if value is None else value
                        text("td", said, "tt-number" if place in right else "")
