"""`tutelage up` (and `serve`): the gateway, its engine and the web page until interrupted."""

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
    web: Annotated[bool, typer.Option(help="Start the web page too.")] = True,
    web_port: Annotated[
        int | None, typer.Option(help="Port of the web page; 0 picks one.", show_default="8090")
    ] = None,
    demo: Annotated[
        bool, typer.Option(help="Make a project in which every page has something to show.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Serve the stable release (and a rollout, if one is under way) and the web page."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.serving.page_child import PageChild
        from tutelage.workflows.serving.serve import run_serve

        if demo:
            from tutelage.workflows.demo.demo_site import prepare

            project = prepare(project, out.emit)
        ctx = open_context(project, out.emit)

        def page_ready(url: str, notes: list[str]) -> None:
            if as_json:
                return
            out.out.print(f"[green]✓[/] The web page is at [bold]{url}[/]")
            for note in notes:
                out.out.print(f"  {note}", markup=False)

        page = PageChild(ctx, port=web_port, ready=page_ready) if web else None

        def ready(url: str) -> None:
            def show(console: Console) -> None:
                console.print(f"[green]✓[/] {ctx.config.name} answers at [bold]{url}/v1[/]")
                console.print("  [dim]Ctrl-C drains and stops[/]")

            shown = {"url": url, "deployment": ctx.config.name, "page": page.url if page else None}
            out.result(shown, show)

        run_serve(ctx, host=host, port=port, on_ready=ready, beside=page)
