"""`tutelage data redact` and `restore`: pseudonyms for identifiers, and back with the key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

_KeyOption = Annotated[
    Path | None,
    typer.Option("--key", help="The key file, outside the project.", show_default="the project's"),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `tutelage data`."""
    app.command()(redact)
    app.command()(restore)


def redact(
    file: Annotated[
        Path | None, typer.Argument(help="A file with rows or text; without it, all sources.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the copy goes.", show_default="redacted/"),
    ] = None,
    shift_dates: Annotated[
        bool, typer.Option("--shift-dates", help="Move dates, the same days within a group.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be replaced.")
    ] = False,
    key: _KeyOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write copies with pseudonyms in place of personal and health identifiers."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import privacy as work

        ctx = open_context(project, out.emit)
        dates: Any = "shift" if shift_dates else None
        if file is None:
            reports = work.redact_sources(ctx, output, dates=dates, key=key, dry_run=dry_run)
        else:
            reports = [work.redact_file(ctx, file, output, dates=dates, key=key, dry_run=dry_run)]
        data = {
            "files": [report.as_dict() for report in reports],
            "key": None if dry_run else str(work.key_file(ctx, key)),
        }
        out.result(data, lambda console: _show(console, data))


def _show(console: Console, data: dict[str, Any]) -> None:
    from tutelage.cli.screens import indented, simple_table

    for entry in data["files"]:
        goes = f" → {entry['output']}" if entry["output"] else ""
        console.print(f"{entry['file']}{goes}", markup=False)
        rows = [(kind, count) for kind, count in entry["found"].items()]
        if rows:
            console.print(indented(simple_table(("kind", "found"), rows)))
            shown = [(item["kind"], item["text"]) for item in entry["examples"][:5]]
            console.print(indented(simple_table(("", "for example"), shown)))
        else:
            console.print("    no identifiers found")
    if data["key"]:
        console.print(f"Only this key brings them back: {data['key']}", markup=False)


def restore(
    file: Annotated[Path, typer.Argument(help="A file with pseudonyms of the project.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the copy goes.", show_default="beside it"),
    ] = None,
    key: _KeyOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write a copy of a file with the identifiers back in place of their pseudonyms."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import privacy as work

        data = work.restore_file(open_context(project, out.emit), file, output, key=key)

        def show(console: Console) -> None:
            console.print(
                f"{data['restored']} identifiers restored → {data['output']}", markup=False
            )
            if data["unknown"]:
                console.print(f"{data['unknown']} pseudonyms of other projects were left")

        out.result(data, show)
