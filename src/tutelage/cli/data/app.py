"""`tutelage data …`: freeze a version, read its report; each family adds its commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from tutelage.cli.data import (
    agree,
    augment,
    balance,
    check,
    duplicates,
    files,
    label,
    leaks,
    learning,
    preferences,
    privacy,
    quality,
    quarantine,
    repairs,
    tokens,
    versions,
)
from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

_MEND = "Mend the rows and run the command again"

app = typer.Typer(
    name="data", help="Rows: import, check, clean, split, report.", no_args_is_help=True
)

for family in (
    agree,
    augment,
    balance,
    check,
    duplicates,
    files,
    label,
    leaks,
    learning,
    preferences,
    privacy,
    quality,
    quarantine,
    repairs,
    tokens,
    versions,
):
    family.register(app)


@app.command()
def split(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Import, check, clean, deduplicate, and freeze a dataset version with its splits."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.curate import curate, quarantine_sentence

        ctx = open_context(project, out.emit)
        outcome = curate(ctx)
        folder = ctx.path_of(outcome.artifact)
        data: dict[str, Any] = {
            "dataset": outcome.artifact.short,
            "skipped": outcome.skipped,
            "path": str(folder),
            **outcome.artifact.meta,
        }

        def show(console: Console) -> None:
            console.print(f"dataset [bold]{outcome.artifact.short}[/]  {folder / 'report.html'}")

        out.result(data, show)
        waiting = quarantine_sentence(outcome.artifact.meta)
        if waiting is not None:
            raise DataError(f"{waiting} ({folder / 'quarantine.jsonl'})", fix=_MEND)


@app.command()
def report(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Print the report of the newest dataset version."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.outputs import require_output

        ctx = open_context(project, out.emit)
        artifact = require_output(ctx, "curate")
        folder = ctx.path_of(artifact)
        text = (folder / "report.txt").read_text(encoding="utf-8")

        def show(console: Console) -> None:
            console.print(text, markup=False)
            console.print(f"[dim]{folder / 'report.html'}[/]")

        out.result(
            {"dataset": artifact.short, "report": str(folder / "report.html"), **artifact.meta},
            show,
        )
