"""`tutelage usage`: tokens and cost by release, key, deployment and day; what budgets have left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(usage)


def usage(
    by: Annotated[
        str, typer.Option(help="Fields of a line: day, deployment, release, key; with commas.")
    ] = "deployment,release",
    since: Annotated[
        str | None, typer.Option(help="7d, or a day such as 2026-11-01.", show_default="30d")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="The last day, such as 2026-11-26.", show_default="now")
    ] = None,
    key: Annotated[str | None, typer.Option(help="This key's requests alone.")] = None,
    deployment: Annotated[str | None, typer.Option(help="This deployment's alone.")] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show requests, tokens and cost, and how far the budgets are used."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.serving.usage import UsageDesk

        desk = UsageDesk(open_context(project, out.emit))
        fields = [field.strip() for field in by.split(",") if field.strip()]
        found = desk.report(since=since, until=until, by=fields, key=key, deployment=deployment)
        budgets, idle = desk.budgets(), desk.idle_budgets()

        def show(console: Console) -> None:
            _show_use(console, found)
            if budgets:
                _show_budgets(console, budgets, found["currency"])
            for why in idle:
                console.print(f"A budget holds nobody: {why}.", markup=False)

        out.result({**found, "budgets": budgets, "idle_budgets": idle}, show)


def _show_use(console: Console, found: Mapping[str, Any]) -> None:
    from tutelage.cli.screens import simple_table

    span = f"{found['since']:%Y-%m-%d %H:%M} to {found['until']:%Y-%m-%d %H:%M} UTC"
    console.print(f"[bold]Use[/] [dim]{span}[/]")
    if not found["rows"]:
        console.print("  nothing was asked in this time")
        return
    headers = (*found["by"], "requests", "failed", "asked", "answered", found["currency"])
    rows = [(*(row[field] for field in found["by"]), *_figures(row)) for row in found["rows"]]
    if len(rows) > 1:
        names = ["all", *[""] * (len(found["by"]) - 1)] if found["by"] else []
        rows.append((*names, *_figures(found["total"])))
    console.print(simple_table(headers, rows))
    if found["total"]["unpriced"]:
        count = f"{found['total']['unpriced']:,}"
        console.print(f"[dim]{count} requests have no price: add prices to tutelage.yaml[/]")


def _figures(row: Mapping[str, Any]) -> tuple[str, ...]:
    cost = "–" if row["cost"] is None else f"{row['cost']:,.4f}"
    counts = (row[n] for n in ("requests", "failed", "prompt_tokens", "completion_tokens"))
    return (*(f"{count:,}" for count in counts), cost)


def _show_budgets(console: Console, budgets: Sequence[Mapping[str, Any]], currency: str) -> None:
    from tutelage.cli.screens import simple_table
    from tutelage.serving.access.accounts import number

    rows = []
    for one in budgets:
        unit = currency if one["unit"] == "cost" else one["unit"]
        rows.append(
            (
                one["key"] or "everybody",
                one["deployment"] or "all",
                f"{number(one['limit'])} {unit}/{one['per']}",
                number(one["spent"]),
                number(one["left"]),
                f"{one['ends_at']:%Y-%m-%d %H:%M}" if one["ends_at"] else "–",
            )
        )
    console.print("\n[bold]Budgets[/]")
    headers = ("key", "deployment", "budget", "spent", "left", "starts anew (UTC)")
    console.print(simple_table(headers, rows))
