"""`tutelage data augment`: rows that a teacher writes, within a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, Frame, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.workflows.context import Context


def register(app: typer.Typer) -> None:
    """Add the command to `tutelage data`."""
    app.command()(augment)


def augment(
    method: Annotated[
        str,
        typer.Option(
            "--method", "-m", help="paraphrase, back_translation, instruction, synthetic, …"
        ),
    ] = "paraphrase",
    count: Annotated[
        int | None, typer.Option("--count", help="Rows wanted; the cap is augment.ratio.")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option("--texts", help="Answers to find requests for, one a line.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the batches there are.")] = False,
    remove: Annotated[str | None, typer.Option("--remove", help="Take a batch out.")] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Let the teacher write rows for the train split. Run again, it goes on where it stopped."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import augment as work

        ctx = open_context(project, out.emit)
        if listed:
            _list(ctx, out)
            return
        if remove is not None:
            rows = work.remove(ctx, remove)
            out.result(
                {"batch": remove, "removed": rows},
                lambda console: console.print(f"{rows} rows taken out; run `tutelage data split`"),
            )
            return
        done = work.augment(ctx, method, count, texts).as_dict()
        out.result(done, lambda console: _show(console, done))
        if not done["kept"]:
            raise typer.Exit(1)


def _list(ctx: Context, out: Frame) -> None:
    from tutelage.cli.screens import indented, simple_table
    from tutelage.workflows.data.augment import batches

    found = batches(ctx)
    keys = ("batch", "at", "method", "model", "rows", "rejected")

    def show(console: Console) -> None:
        if found:
            rows = [tuple(entry[key] for key in keys) for entry in found]
            console.print(indented(simple_table(keys, rows)))
        else:
            console.print("No row was augmented yet.")

    out.result({"batches": found}, show)


def _show(console: Console, done: dict[str, Any]) -> None:
    from tutelage.cli.screens import indented, simple_table
    from tutelage.data.findings import catalogue

    console.print(
        f"[bold]{done['kept']:,}[/] rows from {done['model']} ({done['method']}), "
        f"{done['tokens']:,} tokens spent"
    )
    known = catalogue()
    rows = [(count, known[key].what.lower(), key) for key, count in sorted(done["reasons"].items())]
    if done["unread"]:
        rows.append((done["unread"], "answers without usable JSON", ""))
    if done["failed"]:
        rows.append((done["failed"], "requests that failed; the next run asks again", ""))
    if rows:
        console.print(indented(simple_table(("left out", "why", "id"), rows)))
    if done["budget_spent"]:
        console.print("The budget (augment.tokens) is spent; raise it and run the same command.")
    console.print(f"[dim]{done['path']}[/]\nnext: `tutelage data split` adds them to train")
