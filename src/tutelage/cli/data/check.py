"""`tutelage data check`: what is wrong with the rows, and what of it can be fixed for certain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.workflows.data.fix import Change, Fixes

_SHOWN = 20  # changes that are printed; --json has all
_LINES = 12  # lines of one change that are printed
_MEND = "`tutelage data check --fix` mends what is certain; mend the rest and run it again"
_KINDS = {
    "clean": "tidied every time they are read",
    "repair": "corrected by a repair",
    "line": "read from a repair of their line",
}


def register(app: typer.Typer) -> None:
    """Add the commands to `tutelage data`."""
    app.command()(check)


def check(
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what is certain, as repairs; sources stay.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what --fix would change, keeping nothing.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Read and check the sources. Exit 2 if rows can't be used."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.check import check as work
        from tutelage.workflows.data.fix import fix as mend

        ctx = open_context(project, out.emit)
        fixes = mend(ctx, dry_run=dry_run) if fix or dry_run else None
        if fixes is not None and not as_json:
            out.close()
            _show_fixes(out.out, fixes, dry_run)
        result = work(ctx)
        if fixes is not None:
            result["fixes"] = fixes.as_dict()
        out.result(result, lambda console: _show(console, result))
        if result["lost"]:
            rows = "1 row" if result["lost"] == 1 else f"{result['lost']:,} rows"
            raise DataError(
                f"{rows} can't be used; first: {result['first']}",
                fix="Mend the rows and run the command again" if fix else _MEND,
            )


def _show(console: Console, result: dict[str, Any]) -> None:
    from rich.text import Text

    from tutelage.cli.screens import indented, simple_table

    for line in result["detected"]:
        console.print("[dim]·[/]", Text(line))
    console.print(f"[bold]{result['kept']:,}[/] rows can be used, {result['lost']:,} can't")
    rows = [
        (f["id"], f["severity"], f["count"], f["what"], f["examples"][0]["where"])
        for f in result["findings"]
    ]
    if rows:
        console.print(indented(simple_table(("id", "severity", "rows", "what", "first"), rows)))


def _show_fixes(console: Console, fixes: Fixes, dry_run: bool) -> None:
    if not fixes.changes:
        console.print("Nothing to fix that is certain.")
        return
    ordered = sorted(fixes.changes, key=lambda change: change.kind == "clean")
    for change in ordered[:_SHOWN]:
        _show_change(console, change)
    if len(ordered) > _SHOWN:
        console.print(f"[dim]… and {len(ordered) - _SHOWN:,} more; --json lists all[/]")
    for kind, count in fixes.counts().items():
        if count:
            console.print(f"[bold]{count:,}[/] {'row' if count == 1 else 'rows'} {_KINDS[kind]}")
    if fixes.batch is not None:
        console.print(
            f"kept as batch [bold]{fixes.batch}[/]; `tutelage data repairs --undo "
            f"{fixes.batch}` takes it back"
        )
    elif fixes.repairs and dry_run:
        console.print("nothing was kept; `tutelage data check --fix` keeps it")


def _show_change(console: Console, change: Change) -> None:
    from rich.text import Text

    styles = {"+": "green", "-": "red", "@": "dim"}
    _, _, *lines = change.diff or ["", ""]
    place = Text.assemble((change.source, "bold"), f"  {change.what}  ", (change.finding, "dim"))
    console.print(place)
    for line in lines[:_LINES]:
        if not line.startswith("@@"):
            console.print(Text(line[:300], style=styles.get(line[:1], "")))
    if len(lines) > _LINES:
        console.print(f"[dim]  … {len(lines) - _LINES} more lines[/]")
