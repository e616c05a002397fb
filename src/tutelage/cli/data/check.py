"""`tutelage data check`: what is wrong with the rows, without writing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the commands to `tutelage data`."""
    app.command()(check)


def check(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Read and check the sources, writing nothing. Exit 2 if rows can't be used."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.check import check as work

        result = work(open_context(project, out.emit))

        def show(console: Console) -> None:
            from tutelage.cli.screens import indented, simple_table

            for line in result["detected"]:
                console.print(f"[dim]·[/] {line}")
            console.print(f"[bold]{result['kept']}[/] rows can be used, {result['lost']} can't")
            rows = [(f["id"], f["severity"], f["count"], f["what"]) for f in result["findings"]]
            if rows:
                console.print(indented(simple_table(("id", "severity", "rows", "what"), rows)))

        out.result(result, show)
        if result["lost"]:
            rows = "1 row" if result["lost"] == 1 else f"{result['lost']} rows"
            raise DataError(
                f"{rows} can't be used; first: {result['first']}",
                fix="Mend the rows and run the command again",
            )
