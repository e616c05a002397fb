"""Commands about a whole project: quickstart, init, run, status, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, Frame, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(quickstart)
    app.command()(init)
    app.command()(run)
    app.command()(status)
    app.command()(doctor)


def quickstart(
    directory: Annotated[Path, typer.Argument(help="Where to make the demo.")] = Path("demo"),
    port: Annotated[int, typer.Option(help="The gateway's port; 0 picks a free one.")] = 8321,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run the whole loop on a demo project: real rows, a real model, no network."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.demo.quickstart import quickstart as work

        result = work(directory, out.emit, port=port)

        def show(console: Console) -> None:
            from tutelage.cli.finish import quickstart_view

            console.print(quickstart_view(result.as_dict(), directory))

        out.result(result.as_dict(), show)
        exit_by_verdict(result.summary.verdict)


def init(
    directory: Annotated[Path, typer.Argument(help="The project's folder.")] = HERE,
    data: Annotated[Path | None, typer.Option(help="Your rows: a CSV, TSV or JSONL file.")] = None,
    name: Annotated[str | None, typer.Option(help="The project's name.")] = None,
    task: Annotated[str | None, typer.Option(help="The task, if the guess is wrong.")] = None,
    model: Annotated[str, typer.Option(help="Hub id, folder, .gguf file, or demo.")] = "demo",
    prompt: Annotated[str | None, typer.Option(help="What the model is told to do.")] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a project around your own rows."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.init import init as work

        path = work(directory, data=data, name=name, task=task, model=model, prompt=prompt)

        def show(console: Console) -> None:
            console.print(f"[green]✓[/] wrote {path}")
            console.print(f"  look it over, then: [bold]tutelage run --project {directory}[/]")

        out.result({"config": str(path)}, show)


def run(
    force: Annotated[bool, typer.Option(help="Release even without a passing verdict.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Curate, plan, train, evaluate and release, skipping what is unchanged."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.run import run as work

        ctx = open_context(project, out.emit)
        summary = work(ctx, force=force)
        data = summary.as_dict()

        def show(console: Console) -> None:
            from tutelage.cli.finish import run_view

            console.print(run_view(data, ctx.workspace.home))

        out.result(data, show)
        exit_by_verdict(summary.verdict)


def exit_by_verdict(verdict: str) -> None:
    """End with the exit code of a verdict: 0 pass, 1 fail, 3 not enough evidence."""
    from tutelage.core.errors import EXIT_DONE, EXIT_NO, EXIT_NOT_ENOUGH_EVIDENCE

    code = {"pass": EXIT_DONE, "fail": EXIT_NO}.get(verdict, EXIT_NOT_ENOUGH_EVIDENCE)
    if code:
        raise typer.Exit(code)


def status(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Show where the loop stands and what to do next."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.status import loop_status

        data = loop_status(open_context(project, out.emit))

        def show(console: Console) -> None:
            from tutelage.cli.finish import status_view

            console.print(status_view(data))

        out.result(data, show)


def doctor(as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """Say what this machine can do, and why not."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.doctor import examine

        checks = examine()
        _show_checks(out, checks)
        if any(check["state"] == "missing" for check in checks):
            raise typer.Exit(1)


def _show_checks(out: Frame, checks: list[dict[str, Any]]) -> None:
    marks = {"ok": "[green]✓[/]", "optional": "[yellow]·[/]", "missing": "[red]✗[/]"}

    def show(console: Console) -> None:
        for check in checks:
            console.print(f"{marks[check['state']]} [bold]{check['name']}[/]  {check['what']}")
            if check["fix"]:
                console.print(f"    [dim]{check['fix']}[/]")

    out.result({"checks": checks}, show)
