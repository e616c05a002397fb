"""`tutelage prompt …`: the versions of the project's prompt, from a draft to the published one."""

from __future__ import annotations

from typing import Annotated

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

app = typer.Typer(
    name="prompt",
    help="Versions of the prompt: draft, test, review, publish, restore, compare.",
    no_args_is_help=True,
)
VersionArgument = Annotated[
    str, typer.Argument(help="A version's number or the start of its hash.")
]
ByOption = Annotated[
    str | None, typer.Option("--by", help="Who does this.", show_default="this machine's user")
]
NoteOption = Annotated[str, typer.Option("--note", help="Why; kept in the journal.")]


@app.command(name="list")
def list_(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """List the versions, newest first, and say which one is in force."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import prompt_view
        from tutelage.release import prompts
        from tutelage.workflows.context import open_context

        ctx = open_context(project, out.emit)
        rows = prompts.listing(ctx.store)
        told = ctx.prompt.told if ctx.prompt else ""
        data = {"prompts": rows, "in_force": ctx.prompt.number if ctx.prompt else None}
        out.result(
            data | {"told": told}, lambda console: console.print(prompt_view.table(rows, told))
        )


@app.command()
def show(
    version: VersionArgument,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Print one version: its text alone, or with --json all that is known of it."""
    with frame(as_json, verbose) as out:
        from tutelage.release import prompts
        from tutelage.workflows.context import open_context

        row = prompts.show(open_context(project, out.emit).store, version)
        out.result(row, lambda console: console.out(row["text"]))


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
        from tutelage.cli import prompt_view
        from tutelage.release import prompts
        from tutelage.workflows.context import open_context

        store = open_context(project, out.emit).store
        pieces = prompts.changes(prompts.find(store, old).text, prompts.find(store, new).text)
        text = "".join(prompts.marked(*piece) for piece in pieces)
        out.result({"diff": text}, lambda console: console.print(prompt_view.difference(pieces)))


@app.command()
def draft(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE|-]", help="A text file, or - for stdin.")
    ] = None,
    edit: Annotated[
        bool,
        typer.Option("--edit", help="Write it in $EDITOR, from the prompt in force on."),
    ] = False,
    note: NoteOption = "",
    by: ByOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Keep a new text as a draft: from a file, stdin or your editor."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import prompt_view
        from tutelage.cli.editor import given_text
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.prompt import draft as work

        ctx = open_context(project, out.emit)
        text = given_text(file, edit, ctx.config.prompt)
        row = work(ctx, text, by=by, note=note)
        out.result(row, lambda console: console.print(prompt_view.drafted(row)))


@app.command()
def test(
    version: Annotated[
        str | None,
        typer.Argument(help="A version's number or hash.", show_default="the newest draft"),
    ] = None,
    rows: Annotated[
        int, typer.Option(help="Test rows that join the must-pass rows and golden prompts.")
    ] = 0,
    by: ByOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Test a draft beside the published version; exit 1 if it regressed."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import prompt_view
        from tutelage.core.errors import EXIT_NO
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.prompt_trial import trial

        found = trial(open_context(project, out.emit), version, rows=rows, by=by)
        out.result(found, lambda console: console.print(prompt_view.trial(found)))
        if found["outcome"] == "regressed":
            raise typer.Exit(EXIT_NO)


@app.command()
def review(
    version: VersionArgument,
    by: Annotated[str, typer.Option("--by", help="Who reviewed it.")],
    approve: Annotated[
        bool | None, typer.Option("--approve/--reject", help="The verdict.", show_default=False)
    ] = None,
    note: NoteOption = "",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Approve or reject a tested version."""
    with frame(as_json, verbose) as out:
        from tutelage.core.errors import DataError
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.prompt import review as work

        if approve is None:
            raise DataError("a review needs a verdict", fix="Add --approve or --reject")
        row = work(open_context(project, out.emit), version, approve=approve, by=by, note=note)
        text = f"version {row['number']} is {row['state']} by {by}"
        out.result(row, lambda console: console.print(text, markup=False))


@app.command()
def publish(
    version: VersionArgument,
    note: NoteOption = "",
    force: Annotated[
        bool, typer.Option(help="Publish even without a test that did not regress.")
    ] = False,
    by: ByOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a tested version the published one: what training, evaluation and releases use."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import prompt_view
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.prompt import publish as work

        row = work(open_context(project, out.emit), version, note=note, by=by, force=force)
        out.result(row, lambda console: console.print(prompt_view.moved(row), markup=False))


@app.command()
def restore(
    version: VersionArgument,
    note: NoteOption = "",
    by: ByOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Publish again a version that was published before."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import prompt_view
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.prompt import restore as work

        row = work(open_context(project, out.emit), version, note=note, by=by)
        out.result(row, lambda console: console.print(prompt_view.moved(row), markup=False))


@app.command()
def log(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Show everything that happened to the prompt: when, who, why, on which evidence."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import prompt_view
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.prompt import log as work

        events = work(open_context(project, out.emit))
        out.result({"events": events}, lambda console: console.print(prompt_view.log(events)))
