"""`tutelage feedback …`: give, import, list and sum up what users said; keep test rows apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(name="feedback", help="What users said and did, by record.", no_args_is_help=True)
RecordArgument = Annotated[str, typer.Argument(help="The id of the answer, such as rec_…")]
AuthorOption = Annotated[str | None, typer.Option(help="Who says so.")]
SinceOption = Annotated[
    str | None, typer.Option(help="7d, or a day such as 2026-11-01.", show_default="30d")
]


@app.command()
def add(
    record: RecordArgument,
    rating: Annotated[
        str | None, typer.Option(help="up, down, or a number from 0 (bad) to 1 (good).")
    ] = None,
    edit: Annotated[str | None, typer.Option(help="What the answer should have been.")] = None,
    comment: Annotated[str | None, typer.Option(help="Text.")] = None,
    signal: Annotated[
        list[str] | None, typer.Option(help="NAME or NAME=VALUE; may be given several times.")
    ] = None,
    author: AuthorOption = None,
    at: Annotated[str | None, typer.Option(help="When, ISO 8601.", show_default="now")] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: a retry with it changes nothing.")
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Give feedback on one answer; it is durable when the command ends."""
    with frame(as_json, verbose) as out:
        from tutelage.feedback.deliveries import KEY, value_of
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import feedback

        ctx = open_context(project, out.emit)
        signals: dict[str, Any] = {}
        words = feedback.texts(ctx)
        for text in signal or ():
            name, equals, value = text.partition("=")
            said = value if name in words else value_of(value)
            signals[name] = said if equals else True
        given = None if rating is None else value_of(rating)
        body = {"record_id": record, "rating": given, "edit": edit, "comment": comment,
                "signals": signals or None, "at": at, KEY: key}  # fmt: skip
        found = feedback.add(ctx, body, author)

        def show(console: Console) -> None:
            console.print(f"kept: {', '.join(found['kept'])} on {record}")
            for name, near in found["undeclared"].items():
                hint = f"; did you mean {near}?" if near else ""
                console.print(f"[yellow]![/] {name} is not declared, it counts nothing{hint}")
            if not found["known"]:
                console.print("[dim]the log has no record of that id yet[/]")

        out.result(found, show)


@app.command(name="import")
def import_(
    path: Annotated[Path, typer.Argument(help="A .jsonl file of deliveries, or a .csv.")],
    author: AuthorOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take in feedback in bulk; the same file twice changes nothing."""
    with frame(as_json, verbose) as out:
        from tutelage.core.errors import DataError
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import feedback

        found = feedback.import_file(open_context(project, out.emit), path, author)

        def show(console: Console) -> None:
            console.print(
                f"deliveries kept: {found['deliveries']:,}; signals: {found['signals']:,} new, "
                f"{found['repeated']:,} that were there"
            )
            if found["unknown"]:
                console.print(f"[dim]records that are not there yet: {found['unknown']:,}[/]")
            for name, count in found["undeclared"].items():
                console.print(f"[yellow]![/] {name} is not declared ({count:,} times)")
            if found["wrong"]:
                console.print(f"[yellow]![/] lines that were not kept: {found['wrong']:,}")
                for one in found["first"]:
                    console.print(f"  line {one['line']}: {one['problem']}", markup=False)

        out.result(found, show)
        if wrong := found["wrong"]:
            told = "1 line was" if wrong == 1 else f"{wrong:,} lines were"
            raise DataError(
                f"{told} not kept, the others are",
                where=str(path),
                fix="Mend them and import the file again: what was kept counts once",
            )


@app.command(name="list")
def list_(
    kind: Annotated[str | None, typer.Option(help="This signal alone, such as edit.")] = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the signals that came last."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import feedback

        ctx = open_context(project, out.emit)
        rows = feedback.recent(ctx, kind=kind, since=since, limit=limit)

        def show(console: Console) -> None:
            from tutelage.cli.feedback_view import signals

            console.print(signals(rows) if rows else "no feedback in this time")

        out.result({"signals": rows}, show)


@app.command()
def show(
    record: RecordArgument,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show one record: what was asked and answered, what users said, and the score."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import feedback

        found = feedback.show(open_context(project, out.emit), record)

        def draw(console: Console) -> None:
            from tutelage.cli.feedback_view import one_record

            console.print(one_record(found))

        out.result(found, draw)


@app.command()
def summary(
    since: SinceOption = None,
    until: Annotated[
        str | None, typer.Option(help="The last day, such as 2026-11-26.", show_default="now")
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Sum up: how often each signal came, and how good the answers were, by release."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import feedback

        found = feedback.summary(open_context(project, out.emit), since=since, until=until)

        def draw(console: Console) -> None:
            from tutelage.cli.feedback_view import summed_up

            console.print(summed_up(found))

        out.result(found, draw)


@app.command()
def signals(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Show what each signal means in this project: direction, weight, kind."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import feedback

        rows = feedback.signals(open_context(project, out.emit))

        def draw(console: Console) -> None:
            from tutelage.cli.feedback_view import meanings

            console.print(meanings(rows))

        out.result({"signals": rows}, draw)


@app.command()
def traffic(
    everything: Annotated[
        bool, typer.Option("--all", help="Read all records again, not only the newest.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Read time_to_next, retried and abandoned from the traffic now; `up` does so by itself."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import feedback

        found = feedback.traffic(open_context(project, out.emit), everything=everything)
        out.result(
            found,
            lambda console: console.print(
                f"{found['records']:,} records: {found['written']:,} signals written, "
                f"{found['removed']:,} taken back"
            ),
        )


@app.command()
def sides(
    everything: Annotated[
        bool, typer.Option("--all", help="Look at all records, not only at corrected ones.")
    ] = False,
    look: Annotated[
        bool, typer.Option(help="Look for twins now; without, only show what moved before.")
    ] = True,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Move the twins of held-out rows out of training, and show which records moved and why."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import segment

        ctx = open_context(project, out.emit)
        found = segment.hold_apart(ctx, everything=everything) if look else {"moved": 0}
        rows = segment.moved_records(ctx)

        def draw(console: Console) -> None:
            from tutelage.cli.feedback_view import moved

            console.print(moved(found, rows))

        out.result({**found, "records": rows}, draw)
