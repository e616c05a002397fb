"""`tutelage web`: the page where experts teach and operators watch, until interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(web)


def web(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks one.")] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve the web page of a project until Ctrl-C."""
    with frame(as_json, verbose) as out:
        from tutelage.web.run import run_web

        def ready(url: str, notes: list[str]) -> None:
            def show(console: Console) -> None:
                console.print(f"[green]✓[/] The page is at [bold]{url}[/]")
                for note in notes:
                    console.print(f"  {note}", markup=False)
                console.print("  [dim]Ctrl-C stops it[/]")

            out.result({"url": url, "notes": notes}, show)

        run_web(project, host=host, port=port, parent=parent, on_ready=ready)
