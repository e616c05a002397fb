"""`tutelage data quarantine`: the rows that wait for a person, and what to do about each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the commands to `tutelage data`."""
    app.command()(quarantine)


def quarantine(
    finding: Annotated[
        str | None, typer.Option("--finding", help="Only this id, or ids that begin so (D2-S).")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows that are printed.")] = 20,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the rows that can't be used: where each is, why, and what to do."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.quarantine import by_finding
        from tutelage.workflows.data.quarantine import quarantine as work

        rows = work(open_context(project, out.emit), finding)

        def show(console: Console) -> None:
            from rich.text import Text

            if not rows:
                console.print("No row waits: all can be used.")
                return
            for row in rows[:limit]:
                console.print(Text.assemble((row.place, "bold"), f"  {row.reason}"))
                console.print(Text(f"    {_short(row.row)}", style="dim"))
            if len(rows) > limit:
                console.print(f"[dim]… and {len(rows) - limit:,} more; --limit shows them[/]")
            console.print()
            for key, count, remedy in by_finding(rows):
                console.print(Text.assemble((f"{count:>5,}  {key}  ", "bold"), remedy))
            mendable = sum(row.mendable for row in rows)
            if mendable:
                console.print(f"`tutelage data check --fix` mends {mendable:,} of them.")

        out.result({"rows": [row.as_dict() for row in rows], "count": len(rows)}, show)


def _short(row: object) -> str:
    """Return the beginning of a row on one line."""
    if isinstance(row, dict):
        row = " / ".join(f"{m['role']}: {m.get('content', '')}" for m in row.get("messages", ()))
    return " ".join(str(row).split())[:110]
