"""`tutelage data balance`: labels, refusals, and whether the rows are what production asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import EXIT_NO, EXIT_NOT_ENOUGH_EVIDENCE

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.data.quality.balance import Balance

_SHOWN = 10  # labels and topics


def register(app: typer.Typer) -> None:
    """Add the commands to `tutelage data`."""
    app.command()(balance)


def balance(
    days: Annotated[
        float | None, typer.Option("--days", min=0, help="Only traffic of the last days.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Newest requests that are compared, at most.")
    ] = 5000,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn.")] = 7,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show the rows' spread, and compare it with production. Exit 1 if they differ much."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.balance import balance as work

        found = work(open_context(project, out.emit), days=days, limit=limit, seed=seed)
        out.result(found.as_dict(), lambda console: _show(console, found))
    if found.production.verdict == "too_few":
        raise typer.Exit(EXIT_NOT_ENOUGH_EVIDENCE)
    if found.production.verdict == "differs" or found.refusals.flagged:
        raise typer.Exit(EXIT_NO)


def _show(console: Console, found: Balance) -> None:
    from tutelage.data.quality.balance import percent, topic_differs

    console.print(f"[dim]{found.notes[0]}[/]")
    _show_classes(console, found)
    refused = found.refusals
    console.print(
        f"refusals   {refused.count:,} of {refused.rows:,}, {percent(refused.share)} "
        f"({percent(refused.low)} to {percent(refused.high)}); the limit is "
        f"{percent(refused.limit)}{'  [red]above[/]' if refused.flagged else ''}"
    )
    production = found.production
    if production.verdict == "no_traffic":
        console.print("production no request was logged yet")
        return
    if production.verdict == "too_few":
        console.print(f"production too little to compare: {production.sentences[0]}")
        return
    console.print("production", end=" ")
    for sentence in production.sentences:
        console.print(sentence, markup=False)
    from tutelage.cli.screens import indented, simple_table

    rows = [
        (", ".join(t.words), percent(t.first), percent(t.second), "≠" if topic_differs(t) else "")
        for t in production.topics[:_SHOWN]
    ]
    if rows:
        console.print(indented(simple_table(("about", "rows", "requests", ""), rows)))
    if production.unlabelled:
        console.print(
            f"[dim]{production.unlabelled:,} answers of production hold no label of yours[/]"
        )


def _show_classes(console: Console, found: Balance) -> None:
    if found.classes is None:
        return
    sizes = list(found.classes.counts.items())
    console.print(
        f"labels     {len(sizes):,}; the largest has {found.classes.ratio:.1f} times the rows of "
        f"the smallest, evenness {found.classes.evenness:.2f}"
    )
    for name, labels in (("few rows", found.classes.few), ("no row", found.classes.missing)):
        if labels:
            more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
            console.print(f"{name:<11}{', '.join(labels[:_SHOWN])}{more}", markup=False)
