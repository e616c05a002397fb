"""`tutelage rollout …`: move traffic to a release step by step, on evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="rollout", help="Canary: start, watch, promote, abort.", no_args_is_help=True
)


def _show(data: Mapping[str, Any]) -> Any:
    def show(console: Console) -> None:
        from tutelage.cli.finish import rollout_view

        console.print(rollout_view(data))

    return show


@app.command()
def start(
    release: Annotated[str, typer.Argument(help="The release that shall get traffic.")],
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Start a canary rollout of a release."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.rollout import start as work

        data = work(open_context(project, out.emit), release)
        out.result(data, _show(data))


@app.command()
def status(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Show the rollout: its step, its evidence, its journal."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.rollout import status as work

        data = work(open_context(project, out.emit))
        out.result(data, _show(data))


@app.command()
def promote(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Give the candidate all traffic now."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.rollout import promote as work

        data = work(open_context(project, out.emit))
        out.result(data, _show(data))


@app.command()
def abort(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Take the candidate's traffic away and keep the stable release."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.rollout import abort as work

        data = work(open_context(project, out.emit))
        out.result(data, _show(data))
