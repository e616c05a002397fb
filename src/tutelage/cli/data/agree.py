"""`tutelage data agree`: how far experts agree, in the project or in any file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import EXIT_NOT_ENOUGH_EVIDENCE, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.data.quality.agreement import Agreement

_LABELS = 12  # shown
_PAIR_ITEMS = 10  # items two people share from which on they are shown


def register(app: typer.Typer) -> None:
    """Add the command to `tutelage data`."""
    app.command()(agree)


def agree(
    file: Annotated[
        Path | None, typer.Argument(help="A table with answers; without it, the project's.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="One column a rater: anna,ben.")
    ] = None,
    long: Annotated[
        str | None, typer.Option("--long", help="One row an answer: item,annotator,label.")
    ] = None,
    level: Annotated[
        str, typer.Option("--level", help="nominal, ordinal or interval.")
    ] = "nominal",
    order: Annotated[
        str | None, typer.Option("--order", help="The values of an ordinal scale, lowest first.")
    ] = None,
    batch: Annotated[str | None, typer.Option("--batch", help="Items of this batch only.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the report here.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the intervals.")] = 7,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say how far people agree, with the coefficient that fits. Exit 3 if it can't be told."""
    with frame(as_json, verbose) as out:
        from tutelage.data.quality.agreement import agreement
        from tutelage.data.quality.ratings import LEVELS, read_columns, read_long

        if level not in LEVELS:
            raise DataError(f"{level!r} is no level", fix=f"Known: {', '.join(LEVELS)}")
        scale = _parts(order or "")
        if file is not None:
            if not columns and not long:
                raise DataError(
                    "it is not said which columns hold the answers",
                    where=file.name,
                    fix="Name them: --columns anna,ben, or --long item,annotator,label",
                )
            read = read_long if long else read_columns
            ratings = read(file, _parts(long or columns or ""), order=scale)
        else:
            from tutelage.workflows.context import open_context
            from tutelage.workflows.data.experts_review import ratings as from_store

            ratings = from_store(open_context(project, out.emit), order=scale, batch=batch)
        if level == "ordinal" and not scale:
            _require_numbers(ratings.categories)
        found = agreement(ratings, level=level, seed=seed)
        if html is not None:
            _write(html, found)
        out.result(found.as_dict(), lambda console: _show(console, found))
        if found.chosen.value is None:
            raise typer.Exit(EXIT_NOT_ENOUGH_EVIDENCE)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _require_numbers(names: tuple[str, ...]) -> None:
    """Raise DataError if categories without an order have none of their own."""
    try:
        [float(name) for name in names]
    except ValueError as error:
        raise DataError(
            "an ordinal scale needs the order of its values",
            fix=f"Name them, lowest first: --order {','.join(names[:6])}",
        ) from error


def _write(path: Path, found: Agreement) -> None:
    from tutelage.core import html
    from tutelage.core.workspace import atomic_write
    from tutelage.data.annotation.card import agreement_sections

    page = html.page(
        "How far the experts agree",
        agreement_sections(found),
        subtitle=f"{len(found.raters)} people, {found.items:,} items.",
    )
    atomic_write(path, page.encode())


def _show(console: Console, found: Agreement) -> None:
    from tutelage.cli.screens import indented, simple_table

    console.print(found.sentence(), style="bold", markup=False)
    console.print(f"because: {found.chosen.why}", style="dim", markup=False)
    rows = [(c.name, _number(c.value), _span(c.low, c.high), c.why) for c in found.coefficients]
    console.print(indented(simple_table(("", "value", "95 % interval", "why"), rows)))
    weakest = sorted(
        (one for one in found.labels if one.agreement is not None),
        key=lambda one: one.agreement or 0.0,
    )[:_LABELS]
    table = [(o.label, o.answers, _number(o.agreement), _span(o.low, o.high)) for o in weakest]
    console.print(indented(simple_table(("label", "answers", "agreement", "95 %"), table)))
    shared = [p for p in found.pairs if p.n >= _PAIR_ITEMS]
    if len(found.pairs) > 1 and shared:
        pairs = [
            (f"{p.first} / {p.second}", p.n, _number(p.kappa.value),
             _span(p.kappa.low, p.kappa.high))
            for p in shared
        ]  # fmt: skip
        console.print(indented(simple_table(("people", "items", "kappa", "95 %"), pairs)))
    for one, two, met in found.confusions[:3]:
        console.print(f"given to one item: {one} and {two}, {met:.0f} ×", style="dim", markup=False)
    for note in found.notes:
        console.print(f"! {note}", style="yellow", markup=False)


def _number(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else "–"


def _span(low: float | None, high: float | None) -> str:
    return f"{low:.3f} to {high:.3f}" if low is not None and high is not None else "–"
