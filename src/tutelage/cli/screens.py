"""What a person sees of a result: tables and panels made from plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_VERDICT = {
    "pass": ("PASS", "bold green"),
    "fail": ("FAIL", "bold red"),
    "not_enough_evidence": ("NOT ENOUGH EVIDENCE", "bold yellow"),
}


def verdict_text(verdict: str) -> Text:
    """Return the verdict's words in its colour."""
    words, style = _VERDICT.get(verdict, (verdict, "bold"))
    return Text(words, style=style)


def simple_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return a quiet table: numbers to the right, no lines between rows."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for index, header in enumerate(headers):
        numeric = all(_is_number(row[index]) for row in rows) and bool(rows)
        table.add_column(header, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return table


def _is_number(cell: object) -> bool:
    text = str(cell).strip(" %+-×s")
    return text.replace(".", "", 1).replace(",", "").isdigit() or text in ("", "–")


def indented(content: RenderableType) -> Padding:
    """Return `content` moved under its heading."""
    return Padding(content, (0, 0, 0, 4))


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
