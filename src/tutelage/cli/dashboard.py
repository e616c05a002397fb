"""`tutelage dashboard`: quality, latency, cost and feedback over time, release by release."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

_CHANGES = 10  # that are printed


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(dashboard)


def dashboard(
    deployment: Annotated[
        str | None,
        typer.Option("--deployment", "-d", help="Its name.", show_default="the project's"),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="A length as 7d, or a day.", show_default="30d")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="A day (included) or a time.", show_default="now")
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="hour, day or week.", show_default="by the span")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page to this file too.")] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show how each release does over time: quality, latency, cost, feedback."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.dashboard import DashboardDesk

        desk = DashboardDesk(open_context(project, out.emit))
        data = desk.report(deployment, since=since, until=until, every=every, html=html)
        out.result(data, lambda console: _show(console, data))


def _show(console: Console, data: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from tutelage.cli.screens import clock, simple_table

    console.print(data["sentence"], style="bold", markup=False)
    for note in data["notes"]:
        console.print(f"  {note}", markup=False)
    if data["releases"]:
        console.print()
        headers = ("release", "requests", "failed", "verdict", "p50", "p95", data["currency"])
        console.print(simple_table(headers, [_row(one) for one in data["releases"]]))
    if data["changes"]:
        console.print("\nWhat was changed:")
    for one in data["changes"][-_CHANGES:]:
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(f"  {clock(one['at'])}", Text(f"{one['text']}: {one['why']}"))
        console.print(line)
    if "page" in data:
        console.print(f"\n{data['page']}", markup=False)


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        one["name"],
        f"{one['requests']:,}",
        _told(one["failed"], "{:.1%}"),
        _told(one["feedback"], "{:.2f}"),
        _told(one["latency_p50_ms"], "{:,.0f} ms"),
        _told(one["latency_p95_ms"], "{:,.0f} ms"),
        "–" if one["cost"] is None else f"{one['cost']:,.4f}",
    )


def _told(told: Mapping[str, Any], form: str) -> str:
    return "–" if told["value"] is None else form.format(told["value"])
