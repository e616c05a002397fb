"""`tutelage drift …`: whether live traffic still is what it was, now and watched for good."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, Frame, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import EXIT_NO, EXIT_NOT_ENOUGH_EVIDENCE

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.workflows.feedback.drift_desk import DriftDesk

app = typer.Typer(
    name="drift",
    help="Whether requests, answers and verdicts are what they were.",
    no_args_is_help=True,
)
DeploymentOption = Annotated[
    str | None, typer.Option("--deployment", help="Whose traffic.", show_default="the project's")
]
PageOption = Annotated[bool, typer.Option("--html", help="Write the result as a page.")]
_SHOWN = 6  # examples


@app.command()
def check(
    against: Annotated[
        str | None,
        typer.Option(
            help="auto, training, golden, accepted or before.", show_default="drift.against"
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option("--last", min=1, help="This many newest requests.", show_default="1000"),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Requests since 7d, 24h, or a date.")
    ] = None,
    page: PageOption = False,
    deployment: DeploymentOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Compare recent traffic with a reference, once. Exit 1 if it moved, 3 if it is too little."""
    with frame(as_json, verbose) as out:
        desk = _desk(project, out)
        found = desk.check(deployment=deployment, against=against, last=last, since=since)
        data = found.as_dict(texts=True)
        if page:
            data["page"] = str(desk.page(data, deployment=deployment))
        out.result(data, lambda console: _show_report(console, data))
    if found.verdict == "too_few":
        raise typer.Exit(EXIT_NOT_ENOUGH_EVIDENCE)
    if found.moved:
        raise typer.Exit(EXIT_NO)


@app.command()
def look(
    deployment: DeploymentOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Let the watch read what came since its last look. Exit 1 if an alarm stands."""
    with frame(as_json, verbose) as out:
        found = _desk(project, out).look(deployment=deployment)
        out.result({"watches": found}, lambda console: _show_watches(console, found))
    if any(one["moved"] for one in found):
        raise typer.Exit(EXIT_NO)


@app.command()
def status(
    deployment: DeploymentOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show where the watch stands, without a look. Exit 1 if an alarm stands."""
    with frame(as_json, verbose) as out:
        data = _desk(project, out).status(deployment)
        out.result(data, lambda console: _show_watches(console, [data]))
    if data["moved"]:
        raise typer.Exit(EXIT_NO)


@app.command()
def accept(
    since: Annotated[
        str | None,
        typer.Option(
            "--since", help="From when on: 7d, or a date.", show_default="since the alarm's change"
        ),
    ] = None,
    note: Annotated[str, typer.Option("--note", help="Why; others see it.")] = "",
    deployment: DeploymentOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make recent traffic the normal one: the alarm ends, and the watch begins anew from it."""
    with frame(as_json, verbose) as out:
        data = _desk(project, out).accept(deployment=deployment, since=since, note=note)
        told = f"{data['rows']:,} requests since {data['since'][:16]} are the normal ones now"
        out.result(data, lambda console: console.print(told, markup=False))


@app.command()
def history(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Reports.")] = 20,
    deployment: DeploymentOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the comparisons and alarms that were kept, newest first."""
    with frame(as_json, verbose) as out:
        rows = _desk(project, out).history(deployment=deployment, limit=limit)
        out.result({"reports": rows}, lambda console: _show_history(console, rows))


@app.command()
def show(
    report: Annotated[str | None, typer.Argument(help="Its id.", show_default="the newest")] = None,
    page: PageOption = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show a kept comparison or alarm again, with the requests it points at."""
    with frame(as_json, verbose) as out:
        desk = _desk(project, out)
        data = desk.show(report)
        if page:
            data["page"] = str(desk.page(data["report"], deployment=data["deployment"]))
        shown = {**data["report"], **({"page": data["page"]} if page else {})}
        out.result(data, lambda console: _show_report(console, shown))


def _desk(project: Path, out: Frame) -> DriftDesk:
    from tutelage.workflows.context import open_context
    from tutelage.workflows.feedback.drift_desk import DriftDesk

    return DriftDesk(open_context(project, out.emit))


def _show_report(console: Console, data: Mapping[str, Any]) -> None:
    told = f"{data['recent']['what']}, against {data['reference']['what']}"
    if data["verdict"] != "too_few":
        console.print(told, style="dim", markup=False)
    style = {"moved": "red", "as_before": "green"}.get(data["verdict"], "")
    console.print(data["sentence"], style=style, markup=False)
    moved = [part for part in data["parts"] if part["moved"]]
    for part in moved:
        where = f" ({part['segment']})" if part["segment"] else ""
        told = part["sentence"] or "not as before"
        text = f"  {part['name']}{where}: {told} [p {part['corrected']:.2g}]"
        console.print(text, markup=False)
    texts = {e["record"]: e.get("text", "") for part in moved for e in part["examples"]}
    for text in [text for text in texts.values() if text][:_SHOWN]:
        console.print(f"  “{' '.join(text.split())[:100]}”", style="dim", markup=False)
    if "page" in data:
        console.print(f"page: {data['page']}", markup=False, soft_wrap=True)


def _show_watches(console: Console, found: list[dict[str, Any]]) -> None:
    if not found:
        console.print("no request was logged yet")
    for one in found:
        console.print(f"{one['deployment']}: {one['looked_at']:,} requests looked at", markup=False)
        if one["reference"]:
            console.print(f"  held against {one['reference']}", style="dim", markup=False)
        if one["alarm"]:
            console.print(f"  moved: {one['alarm']['sentence']}", style="red", markup=False)
            console.print("  `tutelage drift accept` if this is normal now; else label and train")
        elif one["looked_at"]:
            console.print("  as before", style="green")
        for series in one["series"]:
            if series["looks"]:
                told = f"p {series['p']:.2g} at look {series['looks']:,}"
                console.print(f"  {series['series']:<18}{told}", markup=False)


def _show_history(console: Console, rows: list[dict[str, Any]]) -> None:
    if not rows:
        console.print("nothing was compared yet: `tutelage drift check` does")
    for row in rows:
        word = "moved" if row["moved"] else "as before"
        head = f"{row['at'][:16]}  {row['id']}  {row['kind']:<6}{word:<10}"
        console.print(f"{head} {row['sentence']}", markup=False)
