"""`tutelage up` (and `serve`, its other name): the gateway and its engine until interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(up)
    app.command(name="serve", help=up.__doc__)(up)


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks one.")] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Serve the stable release (and a rollout, if one is under way) until Ctrl-C."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.serve import run_serve

        ctx = open_context(project, out.emit)

        def ready(url: str) -> None:
            def show(console: Console) -> None:
                console.print(f"[green]✓[/] {ctx.config.name} answers at [bold]{url}/v1[/]")
                console.print("  [dim]Ctrl-C drains and stops[/]")

            out.result({"url": url, "deployment": ctx.config.name}, show)

        run_serve(ctx, host=host, port=port, on_ready=ready)
