"""`tutelage data repairs`: what people decided on rows, and how to take it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the commands to `tutelage data`."""
    app.command()(repairs)


def repairs(
    undo: Annotated[str | None, typer.Option("--undo", help="Take this batch back.")] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the changes people decided on rows, newest first, or take a batch back."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import repairs as work

        ctx = open_context(project, out.emit)
        if undo is not None:
            count = work.undo(ctx, undo)
            out.result(
                {"batch": undo, "undone": count},
                lambda console: console.print(
                    f"{count} changes taken back; `tutelage data split` makes the version anew"
                ),
            )
            return
        found = work.batches(ctx)

        def show(console: Console) -> None:
            from tutelage.cli.screens import indented, simple_table

            if not found:
                console.print("Nobody has changed a row yet.")
                return
            rows = [
                (
                    entry["batch"],
                    entry["at"],
                    entry["rows"],
                    ", ".join(entry["actions"]),
                    entry["reason"],
                    "undone" if entry["undone"] else "",
                )
                for entry in found
            ]
            head = ("batch", "when", "rows", "what", "why", "")
            console.print(indented(simple_table(head, rows)))

        out.result({"batches": found}, show)
