"""`tutelage logs`: logs of other tools in, records out, and what comes in now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="logs",
    help="Production's records: import, export, watch; logs to rows to tune on.",
    no_args_is_help=True,
)
_Files = Annotated[list[str], typer.Argument(help="Files or folders of logs.")]
_Format = Annotated[
    str,
    typer.Option(
        "--format",
        "-f",
        help="auto, latitude, langfuse, openpipe, openai, openai-stored, pairs or sharegpt.",
    ),
]
_Encoding = Annotated[
    str | None,
    typer.Option("--encoding", help="Of text files, such as cp1252.", show_default="found"),
]
_Input = Annotated[str | None, typer.Option("--input", help="The column that asks.")]
_Answer = Annotated[str | None, typer.Option("--answer", help="The one that answers.")]
_Scale = Annotated[
    float | None,
    typer.Option("--rating-scale", help="Ratings go from 1 to this.", show_default="0 to 1"),
]
_Force = Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")]
_Release = Annotated[str | None, typer.Option(help="Only of this release.", show_default="all")]
_Failed = Annotated[bool, typer.Option("--failed", help="Only requests that failed.")]
_Shadow = Annotated[bool, typer.Option("--shadow", help="Copies for a shadow release too.")]


@app.command("import")
def import_(
    files: _Files,
    format: _Format = "auto",
    input: _Input = None,
    answer: _Answer = None,
    user: Annotated[str | None, typer.Option("--user", help="The column with the user.")] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", help="The one whose rows stay on one side of the split."),
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="The one with the call's id.")] = None,
    rating_scale: _Scale = None,
    encoding: _Encoding = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Keep logs of other tools as records: mined, compared and learnt from like the gateway's.

    The same file again adds nothing. Rows that can't be used are kept with reasons; the exit code
    is then 2.
    """
    with frame(as_json, verbose) as out:
        from tutelage.feedback.log_formats.facts import Names
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import logs as work

        ctx = open_context(project, out.emit)
        names = Names(user, group, id, rating_scale)
        reading = work.log_reading(ctx, format, encoding, names=names).with_columns(input, answer)
        done = work.import_logs(ctx, files, reading)
        out.result(done.as_dict(), lambda console: _show_import(console, done.as_dict()))
        _complain(done.rejected, done.first, f"All of them are in {done.rejected_file}")
        if done.feedback_problems:
            raise DataError(
                f"{done.feedback_problems:,} times feedback could not be read, the calls are "
                f"kept; first: {done.first_feedback}",
                fix="For ratings from 1 to 5 add --rating-scale 5, and import again",
            )


@app.command()
def convert(
    files: _Files,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    format: _Format = "auto",
    input: _Input = None,
    answer: _Answer = None,
    min_rating: Annotated[
        float | None,
        typer.Option("--min-rating", min=0, max=1, help="Leave out what is rated lower, or not."),
    ] = None,
    rating_scale: _Scale = None,
    encoding: _Encoding = None,
    force: _Force = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Turn logs into JSON lines to tune on, in one step and without a project.

    Corrected answers take the place of those that were given.
    """
    with frame(as_json, verbose) as out:
        from tutelage.feedback.log_formats.facts import Names
        from tutelage.workflows.feedback import logs as work

        names = Names(scale=rating_scale)
        reading = work.log_reading(None, format, encoding, names=names).with_columns(input, answer)
        done = work.convert_logs(
            files, output, reading, min_rating=min_rating, force=force, emit=out.emit
        )
        out.result(done, lambda console: _show_converted(console, done))
        _complain(done["rejected"], done["first"], "Mend them, or import with their reasons")


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="jsonl or csv (all there is), openai (chats), tuning (what may be learnt).",
            show_default="by the output's ending",
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="7d, or a day such as 2026-11-01.", show_default="all")
    ] = None,
    until: Annotated[str | None, typer.Option(help="The last day.", show_default="now")] = None,
    release: _Release = None,
    side: Annotated[
        str | None, typer.Option(help="train, validation or test.", show_default="all")
    ] = None,
    failed: _Failed = False,
    shadow: _Shadow = False,
    min_score: Annotated[
        float,
        typer.Option("--min-score", min=0, max=1, help="tuning: answers that score lower stay."),
    ] = 0.75,
    prompt: Annotated[
        bool, typer.Option("--prompt", help="Put the project's prompt before each chat.")
    ] = False,
    force: _Force = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write records to a file: everything, as chats, or only what may be learnt from."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import logs_export as work

        chosen = work.Chosen(since, until, release, side, failed, shadow)
        done = work.export_logs(
            open_context(project, out.emit), output, format=format, chosen=chosen,
            min_score=min_score, prompt=prompt, force=force,
        )  # fmt: skip
        out.result(done.as_dict(), lambda console: _show_export(console, done.as_dict()))


@app.command()
def tail(
    count: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Rows shown.")] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with new ones until Ctrl-C.")
    ] = False,
    release: _Release = None,
    failed: _Failed = False,
    shadow: _Shadow = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show the newest requests and answers, with the feedback on them.

    With --follow and --json, one JSON object a line.
    """
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import logs_export as work

        ctx = open_context(project, out.emit)
        chosen = work.Chosen(release=release, failed=failed, shadow=shadow)
        rows = work.tail(ctx, count, chosen=chosen)
        if not follow:
            out.result({"records": rows}, lambda console: _show_rows(console, rows))
            return
        console = out.out
        shown = [row["id"] for row in work.tail(ctx, 1000, chosen=chosen)]
        for row in rows:
            _show_one(console, row, as_json)
        for row in work.follow(ctx, shown, chosen=chosen):
            _show_one(console, row, as_json)


def _complain(rejected: int, first: str | None, fix: str) -> None:
    if rejected:
        rows = "1 row" if rejected == 1 else f"{rejected:,} rows"
        raise DataError(f"{rows} can't be used, the others are kept; first: {first}", fix=fix)


def _show_import(console: Console, done: Mapping[str, Any]) -> None:
    from rich.text import Text

    for line in done["detected"]:
        console.print(Text.assemble(("· ", "dim"), line))
    sides = ", ".join(f"{count:,} {side}" for side, count in sorted(done["sides"].items()))
    told = f" new records{f' ({sides})' if sides else ''}, {done['signals']:,} pieces of feedback"
    console.print(Text.assemble((f"{done['records']:,}", "bold"), told))
    if done["known"]:
        console.print(Text(f"{done['known']:,} calls were known before"))
    if done["too_old"]:
        console.print(Text(f"{done['too_old']:,} calls left out: older than deploy.log_days"))
    if done["forgotten"]:
        told = f"{done['forgotten']:,} calls left out: of users who were forgotten since"
        console.print(Text(told))
    if done["rejected_file"]:
        left = done["rejected"] + done["skipped"]
        console.print(Text(f"{left:,} left out, with reasons, in {done['rejected_file']}"))
    console.print(Text.assemble(("next: ", "dim"), "tutelage logs tail"))


def _show_converted(console: Console, done: Mapping[str, Any]) -> None:
    from rich.text import Text

    for line in done["detected"]:
        console.print(Text.assemble(("· ", "dim"), line))
    told = f" rows in {done['output']}, {done['edited']:,} with a corrected answer"
    console.print(Text.assemble((f"{done['rows']:,}", "bold"), told))
    if done["left_out"]:
        console.print(Text(f"{done['left_out']:,} left out: not rated high enough"))
    if done["empty"]:
        console.print(Text(f"{done['empty']:,} left out: without a question or an answer"))


def _show_export(console: Console, done: Mapping[str, Any]) -> None:
    from rich.text import Text

    edited = f", {done['edited']:,} with a corrected answer" if done["edited"] else ""
    told = f" rows in {done['output']} ({done['format']}){edited}"
    console.print(Text.assemble((f"{done['rows']:,}", "bold"), told))
    for why, count in done["left_out"].items():
        console.print(Text(f"{count:,} left out: {why}"))


def _show_rows(console: Console, rows: list[dict[str, Any]]) -> None:
    if not rows:
        console.print("no such requests")
    for row in rows:
        _show_one(console, row, False)


def _show_one(console: Console, row: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(row, ensure_ascii=False, default=str))
        return
    from rich.text import Text

    asked = row["messages"][-1]["content"] if row["messages"] else "(no text kept)"
    style = "red" if row["status"] >= 400 else "green"
    line = Text.assemble(
        (f"{row['at'][:19]} ", "dim"), (f"{row['status']} ", style),
        f"{_short(asked, 60)} → {_short(row['response'] or row['error'] or '', 40)}",
        (f"  {row['release'][:12]} {row['latency_ms']:,.0f} ms", "dim"),
    )  # fmt: skip
    for one in row["feedback"]:
        line.append(f"  {one['kind']}: {_short(str(one['value']), 30)}", "yellow")
    console.print(line)


def _short(text: str, most: int) -> str:
    flat = " ".join(str(text).split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"
