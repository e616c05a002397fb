"""`tutelage prompt …`: the versions of the project's prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="prompt", help="Versions of the prompt: list, show, diff.", no_args_is_help=True
)
VersionArgument = Annotated[
    str, typer.Argument(help="A version's number or the start of its hash.")
]


@app.command(name="list")
def list_(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """List the versions, newest first."""
    with frame(as_json, verbose) as out:
        from tutelage.release import prompts
        from tutelage.workflows.context import open_context

        rows = prompts.listing(open_context(project, out.emit).store)

        def show(console: Console) -> None:
            from tutelage.cli.screens import simple_table

            cells = [(r["number"], r["hash"][:12], r["state"], r["note"]) for r in rows]
            console.print(simple_table(("no.", "hash", "state", "note"), cells))

        out.result({"prompts": rows}, show)


@app.command()
def show(
    version: VersionArgument,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Print one version."""
    with frame(as_json, verbose) as out:
        from tutelage.release import prompts
        from tutelage.workflows.context import open_context

        row = prompts.show(open_context(project, out.emit).store, version)
        out.result(row, lambda console: console.print(row["text"], markup=False))


@app.command()
def diff(
    old: VersionArgument,
    new: VersionArgument,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Compare two versions word by word."""
    with frame(as_json, verbose) as out:
        from tutelage.release import prompts
        from tutelage.workflows.context import open_context

        text = prompts.diff(open_context(project, out.emit).store, old, new)
        out.result({"diff": text}, lambda console: console.print(text, markup=False))
