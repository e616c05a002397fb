"""`tutelage data import` and `export`: any known file in, OpenAI JSON lines, CSV or Parquet out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.workflows.data.files import Imported

_SHAPES = (
    "auto, openai, openai-stored, openpipe, latitude, langfuse, sharegpt, alpaca, preference, "
    "pairs or text."
)
FormatOption = Annotated[str, typer.Option("--format", "-f", help=f"What the rows are: {_SHAPES}")]
EncodingOption = Annotated[
    str | None,
    typer.Option("--encoding", help="Of text files, such as cp1252.", show_default="found"),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")]
FilesArgument = Annotated[
    list[str], typer.Argument(help="Files or folders, or hf:org/name[:split] of the hub.")
]
ToOption = Annotated[
    str | None,
    typer.Option("--to", help="Name of the file in data/.", show_default="the first file's name"),
]
TargetOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write this file instead; needs no project."),
]
SourceArgument = Annotated[
    str | None,
    typer.Argument(
        help="A dataset version (its first digits), or a file or folder of rows.",
        show_default="the newest version",
    ),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="The file to write, or a folder.")
]
WriteOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        help="openai (JSON lines), csv or parquet.",
        show_default="by the output's ending",
    ),
]
SplitOption = Annotated[
    list[str] | None,
    typer.Option("--split", help="Only this split; can be given again.", show_default="all"),
]
PromptOption = Annotated[
    bool, typer.Option("--prompt", help="Put the project's prompt before each row.")
]
BareOption = Annotated[
    bool, typer.Option("--bare", help="Only what hosted fine-tuning takes: turns and tools.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `tutelage data`."""
    app.command("import")(import_)
    app.command()(export)


def import_(
    files: FilesArgument,
    to: ToOption = None,
    output: TargetOption = None,
    format: FormatOption = "auto",
    input: Annotated[str | None, typer.Option("--input", help="The column that asks.")] = None,
    answer: Annotated[str | None, typer.Option("--answer", help="The one that answers.")] = None,
    encoding: EncodingOption = None,
    force: ForceOption = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Turn logs, tables, data sets or documents into rows to train on (OpenAI JSON lines).

    Rows that can't be used are kept in a file of their own, with place and reason; the exit code
    is then 2, and the good rows are written all the same.
    """
    with frame(as_json, verbose) as out:
        from tutelage.workflows.data import files as work

        ctx = _project_of(project, needed=output is None, emit=out.emit)
        known = work.reading_of(ctx, format, encoding) if ctx else work.Reading(format, encoding)
        known = known.with_columns(input, answer)
        if output is None:
            done = work.import_into(ctx, files, to=to, reading=known, force=force)
        else:
            rejected = work.rejected_path(ctx.workspace, output.stem) if ctx else None
            done = work.import_files(
                files, output, known, rejected=rejected, force=force, emit=out.emit
            )
        following = _next(ctx, done, project)
        out.result(
            {**done.as_dict(), "next": following},
            lambda console: _show_import(console, done, following),
        )
        if done.rejected:
            rows = "1 row" if done.rejected == 1 else f"{done.rejected:,} rows"
            raise DataError(
                f"{rows} can't be used, {done.rows:,} written; first: {done.first}",
                fix=f"All of them are in {done.rejected_file}; mend them and import again",
            )


def _project_of(folder: Path, *, needed: bool, emit: Any) -> Any:
    """Return the opened project, or None if there is none and none is needed."""
    from tutelage.core.errors import ConfigError
    from tutelage.core.workspace import CONFIG_NAME
    from tutelage.workflows.context import open_context

    if (folder / CONFIG_NAME).is_file():
        return open_context(folder, emit)
    if needed or folder != HERE:
        raise ConfigError(
            "there is no tutelage.yaml here",
            where=str(folder.resolve()),
            fix="Name the project with --project DIR, or the file to write with --output FILE",
        )
    return None


def _next(ctx: Any, done: Imported, project: Path) -> str:
    """Return the command to type next."""
    if ctx is None:
        return f"tutelage init my-domain --data {done.output}"
    from tutelage.workflows.data.files import is_source

    option = "" if project == HERE else f" --project {project}"
    return (
        f"tutelage data check{option}"
        if is_source(ctx, Path(done.output))
        else (
            f"add {_inside(ctx, done.output)} to data.sources in tutelage.yaml, "
            f"then tutelage data check{option}"
        )
    )


def _inside(ctx: Any, path: str) -> str:
    from tutelage.data.readers.files import shown

    return shown(Path(path).resolve(), ctx.workspace.root)


def _show_import(console: Console, done: Imported, following: str) -> None:
    from rich.text import Text

    for line in done.detected:
        console.print(Text.assemble(("· ", "dim"), line))
    noun = "row" if done.rows == 1 else "rows"
    console.print(Text.assemble((f"{done.rows:,}", "bold"), f" {noun} in {done.output}"))
    if done.rejected_file:
        left = done.rejected + done.skipped
        console.print(Text(f"{left:,} left out, with reasons, in {done.rejected_file}"))
    console.print(Text.assemble(("next: ", "dim"), following))


def export(
    source: SourceArgument = None,
    output: OutputOption = Path("export"),
    format: WriteOption = None,
    split: SplitOption = None,
    prompt: PromptOption = False,
    bare: BareOption = False,
    force: ForceOption = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write a dataset version, or a file of rows, as OpenAI JSON lines, CSV or Parquet.

    JSON lines of several splits get a file each; tables get a column `split`.
    """
    with frame(as_json, verbose) as out:
        from tutelage.workflows.data import export as work
        from tutelage.workflows.data.files import Reading, reading_of

        is_file = source is not None and Path(source).exists()
        ctx = _project_of(project, needed=not is_file or prompt, emit=out.emit)
        how = work.Export(
            format=format,
            splits=tuple(work.known_split(name) for name in split) if split else None,
            prompt=ctx.config.prompt if prompt else "",
            bare=bare,
            force=force,
        )
        if is_file:
            reading = reading_of(ctx) if ctx else Reading()
            done = work.export_file(Path(source or ""), output, how, reading, out.emit)
        else:
            done = work.export_version(ctx, output, how, source)

        def show(console: Console) -> None:
            from tutelage.cli.screens import indented, simple_table

            rows = [(name, f"{count:,}") for name, count in done.files.items()]
            console.print(indented(simple_table((done.format, "rows"), rows)))

        out.result(done.as_dict(), show)
        if done.unusable:
            rows = "1 row" if done.unusable == 1 else f"{done.unusable:,} rows"
            raise DataError(
                f"{rows} of {source} can't be used, the others are written; first: {done.first}",
                fix="`tutelage data import` keeps such rows with their reasons",
            )
