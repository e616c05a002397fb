"""`tutelage data tokens`: which tokens of the rows training learns, reads or leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def register(app: typer.Typer) -> None:
    """Add the command to `tutelage data`."""
    app.command()(tokens)


def tokens(
    version: Annotated[
        str | None,
        typer.Argument(help="A dataset version.", show_default="the newest"),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Rows that are printed.")] = 3,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show which tokens of the training rows are learned, which are read, and what is cut."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.versions import named
        from tutelage.workflows.training import token_view

        ctx = open_context(project, out.emit)
        dataset = named(ctx, version)
        made = token_view.make(ctx, dataset)
        shown = made.rows(count=rows).rows

        def draw(console: Console) -> None:
            console.print(f"{token_view.sentence(made.facts)}.", markup=False)
            for row in shown:
                console.print(f"\n[dim]{row['id']}[/]")
                console.print(_coloured(row))

        out.result({"dataset": dataset.short, **made.facts, "examples": shown}, draw)


def _coloured(row: dict[str, Any]) -> Text:
    """Return a row: what is learned in green, a cut as such."""
    from rich.text import Text

    text = Text()
    for place, (said, weight) in enumerate(row["pieces"]):
        if row["cut"] == [place]:
            text.append(" […] ", style="bold yellow")
        text.append(said, style="green" if weight >= 1 else "cyan" if weight else "dim")
    return text
