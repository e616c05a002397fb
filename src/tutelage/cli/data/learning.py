"""`tutelage data suggest`, `curve`, `value`: what to label, what more brings, what rows do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import EXIT_NOT_ENOUGH_EVIDENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from tutelage.data.valuation import Valuation, Valued
    from tutelage.workflows.data.learning import CurveReport, Suggested

_TO_LABEL = "to-label.jsonl"
PageOption = Annotated[bool, typer.Option("--html", help="Write the result as a page.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `tutelage data`."""
    app.command()(suggest)
    app.command()(curve)
    app.command()(value)


def suggest(
    pool: Annotated[
        str,
        typer.Option("--pool", help="A file of texts, or production, or quarantine."),
    ],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many texts.")] = 50,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            help="auto, uncertainty, diversity, disagreement, failure or random.",
        ),
    ] = "auto",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File of texts to label, .jsonl or .csv.",
            show_default=f"{_TO_LABEL} in the project",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn.")] = 7,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Choose the texts that are most worth an expert's minute, each with its reason."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import learning as work

        ctx = open_context(project, out.emit)
        path = output or ctx.workspace.root / _TO_LABEL
        found = work.suggest(
            ctx, pool, count, strategy=strategy, output=path, force=force, seed=seed
        )
        out.result(found.as_dict(), lambda console: _show_suggested(console, found))


def curve(
    model: Annotated[
        bool, typer.Option("--model", help="Train the project's model itself; takes hours.")
    ] = False,
    repeats: Annotated[
        int, typer.Option("--repeats", min=2, max=20, help="Parts of the cross-validation.")
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of the order of rows.")] = 7,
    page: PageOption = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say what doubling the rows would bring. Exit 3 if the rows are too few to say."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import learning as work

        ctx = open_context(project, out.emit)
        found = work.curve(ctx, model=model, repeats=repeats, seed=seed)
        path = work.write_page(ctx, found) if page else None
        data = {**found.as_dict(), "page": str(path) if path else None}
        out.result(data, lambda console: _show_curve(console, found, path))
        if not found.curve.enough:
            raise typer.Exit(EXIT_NOT_ENOUGH_EVIDENCE)


def value(
    method: Annotated[
        str,
        typer.Option("--method", help="knn: by neighbours. gradient: by the trained adapter."),
    ] = "knn",
    neighbours: Annotated[
        int, typer.Option("--neighbours", "-k", min=1, help="Of a validation row, for knn.")
    ] = 10,
    show: Annotated[int, typer.Option("--show", min=1, help="Rows of each end to list.")] = 10,
    page: PageOption = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Rank the training rows by what they do for the validation rows: the best and the worst."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import learning as work

        ctx = open_context(project, out.emit)
        found = work.value(ctx, method=method, neighbours=neighbours)
        path = work.write_page(ctx, found) if page else None
        data: dict[str, Any] = {**found.as_dict(), "page": str(path) if path else None}
        out.result(data, lambda console: _show_value(console, found, show, path))


def _show_suggested(console: Console, found: Suggested) -> None:
    console.print(
        f"[bold]{len(found.rows):,}[/] of {found.pool:,} texts, by {found.strategy}, with "
        f"{found.labelled:,} labelled rows known"
    )
    for number, row in enumerate(found.rows, start=1):
        console.print(_block(str(number), row.text, f"{row.strategy}: {row.reason}"))
    for reason, count in found.left_out.items():
        console.print(f"[dim]· {count:,} left out: {reason}[/]")
    if found.first_unreadable:
        console.print(f"[dim]· first: {found.first_unreadable}[/]")
    if found.considered < found.pool:
        console.print(f"[dim]· {found.considered:,} of {found.pool:,} texts were looked at[/]")
    console.print(f"written to {found.path}", markup=False)
    console.print("[dim]`tutelage data label assign --file FILE --to NAME` gives them out[/]")


def _show_curve(console: Console, found: CurveReport, path: Path | None) -> None:
    from tutelage.cli.screens import indented, simple_table

    line = found.curve
    rows = [
        (
            f"{point.rows:,}",
            f"{point.accuracy:.1%}",
            f"{point.low:.1%} to {point.high:.1%}",
            "" if point.rows in line.fitted else "too small for the curve",
        )
        for point in line.points
    ]
    if line.doubled is not None:
        more = line.doubled
        rows.append((f"{more.rows:,}", f"{more.accuracy:.1%}",
                     f"{more.low:.1%} to {more.high:.1%}", "expected"))  # fmt: skip
    head = ("rows", "score", f"{line.confidence:.0%} interval", "")
    console.print(indented(simple_table(head, rows)))
    style = "bold" if line.enough else "yellow"
    console.print(line.sentence[:1].upper() + line.sentence[1:], style=style, markup=False)
    if line.check is not None and line.enough:
        check = line.check
        console.print(
            f"Its own test: from up to {check['from_rows']:,.0f} rows it expects "
            f"{check['expected']:.1%} at {check['rows']:,.0f}; measured were "
            f"{check['measured']:.1%}", style="dim", markup=False,
        )  # fmt: skip
    console.print(found.measured_on, style="dim", markup=False)
    if path:
        console.print(str(path), markup=False)


def _show_value(console: Console, found: Valuation, show: int, path: Path | None) -> None:
    console.print(
        f"{len(found.helpful):,} rows help, {len(found.harmful):,} hurt "
        f"{found.validation:,} validation rows  [dim](value: {found.unit})[/]"
    )
    _show_rows(console, "most harmful", found.harmful[:show])
    _show_rows(console, "most helpful", found.helpful[:show])
    console.print("[dim]A harmful row is often a wrong label: look at it before you drop it[/]")
    if path:
        console.print(str(path), markup=False)


def _show_rows(console: Console, title: str, rows: Sequence[Valued]) -> None:
    if rows:
        console.print(f"[bold]{title}[/]")
    for row in rows:
        said = f"{row.id[:8]} says {row.answer!r}; {row.reason}"
        console.print(_block(f"{row.value:+.3f}", row.text, said))


def _block(mark: str, text: str, why: str) -> RenderableType:
    """Return a row: its mark, its text, and below it why it is here."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=8, justify="right")
    table.add_column(overflow="fold")
    table.add_row(Text(mark, "bold"), Group(Text(" ".join(text.split())[:200]), Text(why, "dim")))
    return table
