"""`tutelage guard …`: the checks of live traffic, tried on a file, and what they said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import EXIT_NO

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="guard", help="Checks of requests and answers: list, test, report.", no_args_is_help=True
)
_Release = Annotated[
    str | None,
    typer.Option(help="A release's name or id.", show_default="the one that serves"),
]
_SHOWN = 20  # rows of a trial that are printed


@app.command(name="list")
def list_(
    release: _Release = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show which checks are on, what they do, and the golden rows they compare with."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.serving.guards_desk import GuardsDesk

        data = GuardsDesk(open_context(project, out.emit)).all(release)
        out.result(data, lambda console: _show_list(console, data))


@app.command()
def test(
    file: Annotated[
        Path,
        typer.Argument(help="JSON lines of requests, with answers or not; or one request a line."),
    ],
    release: _Release = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say what the checks would do to the rows of a file; exit 1 if one would be blocked."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.serving.guards_desk import GuardsDesk

        data = GuardsDesk(open_context(project, out.emit)).test(file, release)
        out.result(data, lambda console: _show_test(console, data))
        if data["blocked"]:
            raise typer.Exit(EXIT_NO)


@app.command()
def report(
    hours: Annotated[float, typer.Option(help="How far back to look.", min=0.01)] = 24.0,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Count what the checks said of logged traffic, and compare it with the golden rows."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.serving.guards_desk import GuardsDesk

        data = GuardsDesk(open_context(project, out.emit)).report(hours)
        out.result(data, lambda console: _show_report(console, data))


def _show_list(console: Console, data: Mapping[str, Any]) -> None:
    console.print(f"checks of {data['release'] or 'a release to come'}")
    for guard in data["guards"]:
        stream = "" if guard["action"] == "flag" else f", streams {guard['stream']}"
        console.print(f"  {guard['name']:<12}{guard['action']}{stream}", markup=False)
    if not data["guards"]:
        console.print("  none: deploy.guards turns them all off")
    golden = data["golden"]
    if golden is None:
        console.print("golden rows: none, so nothing is compared with them")
        return
    console.print(f"golden rows: {golden['rows']:,}")
    for name in ("request", "answer"):
        side = golden[name]
        languages = ", ".join(side["languages"]) or "not told"
        line = f"  {name:<12}{side['from']:,} to {side['to'] or 0:,} characters are usual"
        console.print(f"{line}, languages: {languages}", markup=False)


def _show_test(console: Console, data: Mapping[str, Any]) -> None:
    for row in data["found"][:_SHOWN]:
        word = "blocked" if row["blocked"] else "flagged"
        line = f"line {row['line']}: {row['side']} {word} by {row['guard']}: {row['why']}"
        console.print(line, markup=False)
    more = len(data["found"]) - _SHOWN
    if more > 0:
        console.print(f"… and {more:,} more (--json shows them all)")
    for count in data["counts"]:
        line = f"  {count['check']:<24}{count['side']:<10}{count['action']:<8}{count['rows']:,}"
        console.print(line, markup=False)
    rows, blocked, flagged = data["rows"], data["blocked"], data["flagged"]
    passed = rows - blocked - flagged
    console.print(f"{rows:,} rows: {passed:,} pass, {flagged:,} flagged, {blocked:,} blocked")


def _show_report(console: Console, data: Mapping[str, Any]) -> None:
    if not data["releases"]:
        console.print(f"no requests were logged in the last {data['hours']:g} hours")
    for one in data["releases"]:
        head = f"{one['deployment']}, {one['release']}: {one['requests']:,} requests"
        console.print(f"{head}, {one['objected']:,} objected to", markup=False)
        for check in one["checks"]:
            line = f"  {check['check']:<24}{check['side']:<10}{check['requests']:>8,}"
            console.print(f"{line}  {check['share']:.1%}", markup=False)
        for drift in one["drift"]:
            word = "drifted" if drift["drifted"] else "as before"
            line = f"  {drift['series']:<24}{word:<10}index {drift['index']:.2f}"
            told = f"{line} over {drift['values']:,} requests"
            console.print(f"{told}: {drift['why']}" if drift["drifted"] else told, markup=False)
