"""What `tutelage mine` draws for a person. It reads nothing and decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tutelage.cli.screens import indented, simple_table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from tutelage.feedback.mining.mined import Mined, MinedRow
    from tutelage.workflows.feedback.mine_similar import Spread

_CLUSTERS = 8
_TEXT = 200  # characters of a text


def mined(console: Console, found: Mined, batch: Mapping[str, Any] | None) -> None:
    """Draw a look: its rows with reasons, then clusters, then what was left out."""
    console.print(
        f"[bold]{len(found.rows):,}[/] rows to label of {found.texts:,} texts in "
        f"{found.records:,} records; {found.wanted:,} have a reason, "
        f"{found.known:,} rows of the dataset are known"
    )
    for row in found.rows:
        console.print(_row(row))
    if found.clusters:
        console.print("\n[bold]Where the trouble lies[/]")
        head = ("cluster", "texts", "requests", "wrong, likely", "mostly")
        rows = [
            (one.name, f"{one.texts:,}", f"{one.requests:,}", f"{one.score:.0%}",
             ", ".join(list(one.kinds)[:2]).replace("_", " "))
            for one in found.clusters[:_CLUSTERS]
        ]  # fmt: skip
        console.print(indented(simple_table(head, rows)))
    for reason, count in found.left_out.items():
        console.print(f"{count:,} left out: {reason}", style="dim", markup=False)
    console.print(f"look {found.run}", markup=False)
    if batch is not None:
        given(console, batch)
    elif found.batch is None:
        console.print(f"`tutelage mine assign {found.run} --to NAME` gives them out", style="dim")


def given(console: Console, batch: Mapping[str, Any]) -> None:
    """Draw what was given out."""
    people = ", ".join(f"{name} {count}" for name, count in batch["people"].items())
    console.print(
        f"{batch['items']:,} items to label as batch {batch['batch']}: {people}", markup=False
    )
    console.print("`tutelage data label as NAME` begins", style="dim", markup=False)


def looks(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the looks that were kept."""
    if not rows:
        console.print("nothing was mined yet; run `tutelage mine run`", markup=False)
        return
    head = ("look", "at", "records", "rows", "batch", "answers")
    table = [
        (row["run"], row["at"][:16], f"{row['records']:,}", f"{row['rows']:,}",
         row["batch"] or "", f"{row['answered']:,}" if row["batch"] else "")
        for row in rows
    ]  # fmt: skip
    console.print(indented(simple_table(head, table)))


def similar(console: Console, found: Spread, show: int) -> None:
    """Draw the requests like a corrected one, and what becomes of each."""
    console.print(f"{found.text[:_TEXT]}", style="bold", markup=False)
    console.print(
        f"should be answered {found.correction}; {len(found.rows):,} requests are alike from "
        f"cosine {found.threshold:g} on, {len(found.applies):,} would be corrected",
        markup=False,
    )
    console.print(f"the next lies at {found.nearest_below:.2f}", style="dim", markup=False)
    for row in found.rows[:show]:
        said = " ".join(row.answer.split())[:60]
        why = row.status or f"said {said!r}"
        style = "" if row.applies else "dim"
        console.print(f"  {row.cosine:.2f}  {' '.join(row.text.split())[:_TEXT]}",
                      style=style, markup=False)  # fmt: skip
        console.print(f"        {why}", style="dim", markup=False)
    if len(found.rows) > show:
        console.print(f"  {len(found.rows) - show:,} more; --show lists them", style="dim")
    if found.batch:
        console.print(
            f"{len(found.applies):,} corrected as {found.batch}; "
            f"`tutelage mine undo {found.batch}` takes it back",
            markup=False,
        )
    elif found.applies:
        console.print("nothing is changed yet: add --apply --author NAME", style="dim")


def applied(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the corrections that were applied to similar rows."""
    if not rows:
        console.print("no correction was applied to similar rows yet", markup=False)
        return
    head = ("batch", "at", "record", "by", "rows", "")
    table = [
        (row["batch"], row["at"][:16], row["record"], row["author"], f"{row['rows']:,}",
         "undone" if row["undone"] else "")
        for row in rows
    ]  # fmt: skip
    console.print(indented(simple_table(head, table)))


def _row(row: MinedRow) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    side = "" if row.split == "train" else f"  [{row.split}]"
    text = " ".join(row.text.split())[:_TEXT] or "(the record was deleted)"
    lines: list[RenderableType] = [Text(text + side)]
    for reason in row.reasons:
        lines.append(Text(f"{reason.kind.replace('_', ' ')}: {reason.words}", "dim"))
    where = f"{row.cluster}; " if row.cluster else ""
    asked = "asked once" if row.times == 1 else f"asked {row.times:,} times"
    lines.append(Text(f"{where}{asked}; {row.record}", "dim italic"))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=4, justify="right")
    table.add_column(overflow="fold")
    table.add_row(Text(str(row.rank), "bold"), Group(*lines))
    return table
