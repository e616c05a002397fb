"""What a person sees of a result: tables and panels made from plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_VERDICT = {
    "pass": ("PASS", "bold green"),
    "fail": ("FAIL", "bold red"),
    "not_enough_evidence": ("NOT ENOUGH EVIDENCE", "bold yellow"),
}
_GAP = 2  # spaces between columns
_NARROW = 12  # columns that a text needs to be read in
_ID = 64  # characters of the longest id: a SHA-256
_NAMES = frozenset("0123456789-_")  # what names hold, and few words of a text
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?")


def verdict_text(verdict: str) -> Text:
    """Return the verdict's words in its colour."""
    words, style = _VERDICT.get(verdict, (verdict, "bold"))
    return Text(words, style=style)


class QuietTable(Table):
    """A table without lines that breaks no name: where it is too wide, texts are folded first.

    Where even that is not enough, each row is a block of its own, a line for each column.
    """

    def __init__(self, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        super().__init__(box=None, pad_edge=False, header_style="dim", padding=(0, _GAP, 0, 0))
        self._cells = [[_text(cell) for cell in row] for row in rows]
        self._headers = headers
        for index, header in enumerate(headers):
            numeric = all(_is_number(row[index]) for row in rows) and bool(rows)
            self.add_column(header, justify="right" if numeric else "left", overflow="fold")
        for row in self._cells:
            self.add_row(*row)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it as wide as it may be."""
        room = options.max_width - _GAP * (len(self._headers) - 1)
        columns = [[row[index] for row in self._cells] for index in range(len(self._headers))]
        wanted = [
            max(_width(header), *(_width(cell) for cell in cells), 0)
            for header, cells in zip(self._headers, columns, strict=True)
        ]
        least = [
            max(_whole([*header.split(), *cells]), min(_NARROW, most))
            for header, cells, most in zip(self._headers, columns, wanted, strict=True)
        ]
        if sum(least) > room:
            yield self._blocks()
            return
        if sum(wanted) > room:
            for column, width in zip(self.columns, _shared(least, wanted, room), strict=True):
                column.width = width
        yield from super().__rich_console__(console, options)

    def _blocks(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, _GAP, 0, 0))
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for place, row in enumerate(self._cells):
            if place:
                table.add_row("", "")
            for header, cell in zip(self._headers, row, strict=True):
                if cell.plain:
                    table.add_row(header, cell)
        return table


def simple_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return a quiet table: numbers to the right, no lines between rows."""
    return QuietTable(headers, rows)


def _text(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))


def _width(cell: Text | str) -> int:
    text = cell if isinstance(cell, str) else cell.plain
    return max(map(cell_len, text.splitlines()), default=0)


def _whole(cells: Sequence[Text | str]) -> int:
    """Return the width of the longest word that may be a name or an id, or of a moment."""
    longest = 0
    for cell in cells:
        text = cell if isinstance(cell, str) else cell.plain
        words = [text] if _MOMENT.fullmatch(text) else text.split()
        for word in words:
            named = len(words) == 1 or not _NAMES.isdisjoint(word)
            if named and word.isascii() and len(word) <= _ID:
                longest = max(longest, len(word))
    return longest


def _shared(least: Sequence[int], wanted: Sequence[int], room: int) -> list[int]:
    """Return the columns' widths: at least `least`, what is left to those that lack least."""
    widths, left = list(least), room - sum(least)
    short = sorted(range(len(widths)), key=lambda index: wanted[index] - least[index])
    for place, index in enumerate(short):
        more = min(wanted[index] - least[index], left // (len(short) - place))
        widths[index] += more
        left -= more
    return widths


def _is_number(cell: object) -> bool:
    text = str(cell).strip(" %+-×s")
    return text.replace(".", "", 1).replace(",", "").isdigit() or text in ("", "–")


def indented(content: RenderableType) -> Padding:
    """Return `content` moved under its heading."""
    return Padding(content, (0, 0, 0, 4))


def clock(at: str, *, seconds: bool = False) -> str:
    """Return an ISO 8601 moment to the minute or the second, as it fits into a table."""
    return at[: 19 if seconds else 16].replace("T", " ")


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def verdict_panel(title: str, lines: Sequence[str], verdict: str) -> Panel:
    """Return the box that ends a run: the verdict first, then what carries it."""
    words, style = _VERDICT.get(verdict, (verdict, "bold"))
    body = Group(Text(words, style=style), *(Text(line) for line in lines))
    return Panel(
        body, title=f"[bold]{title}[/]", title_align="left", border_style=style.split()[-1]
    )


def time_table(seconds: Mapping[str, float]) -> Table:
    """Return where the time went, with a bar a stage."""
    total = sum(seconds.values()) or 1.0
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    for name, value in seconds.items():
        bar = "█" * max(1, round(30 * value / total)) if value > 0 else ""
        table.add_row(name, f"{value:.1f} s", Text(bar, style="cyan"))
    table.add_row("total", f"{total:.1f} s", "")
    return table
