"""`tutelage compare A B`: two candidates over the same rows, metric by metric and row by row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN = 20  # changed rows a group, on a terminal


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(compare)


def compare(
    a: Annotated[str, typer.Argument(help="An evaluation's id, an adapter's id, a release, base.")],
    b: Annotated[str, typer.Argument(help="What it is compared with, named in the same ways.")],
    rows: Annotated[bool, typer.Option("--rows", help="Show the rows that changed.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the comparison as one page.")] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Compare two evaluated candidates: every metric's difference, how sure, and what changed."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.evaluation.compare import compare as work

        ctx = open_context(project, out.emit)
        data = work(ctx, a, b)
        if html is not None:
            _write(html, data, ctx.config.name)
        counts = {name: len(group) for name, group in data["changed"].items()}
        shown = data | {"counts": counts}
        if not rows:
            shown = {key: value for key, value in shown.items() if key != "changed"}
        out.result(shown, lambda console: console.print(_view(data, rows)))


def _write(path: Path, data: Mapping[str, Any], name: str) -> None:
    from tutelage.core.workspace import atomic_write
    from tutelage.evaluation.comparison_html import as_html

    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, as_html(data, name).encode())


def _view(data: Mapping[str, Any], rows: bool) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from tutelage.cli.screens import indented, simple_table
    from tutelage.evaluation.comparison import metric_rows

    headers, table = metric_rows(data)
    better, worse = data["changed"]["a_better"], data["changed"]["b_better"]
    summary = (
        f"{data['rows']} rows; {len(better)} better in {data['a']}, {len(worse)} better in "
        f"{data['b']} on {data['primary']}"
    )
    parts: list[RenderableType] = [
        indented(simple_table(headers, table)),
        Text(data["sentence"]),
        Text(summary, style="dim"),
    ]
    if rows:
        parts += [_rows(data, better, data["a"]), _rows(data, worse, data["b"])]
    return Group(*parts)


def _rows(data: Mapping[str, Any], group: list[Mapping[str, Any]], who: str) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from tutelage.cli.screens import indented, simple_table

    if not group:
        return Text(f"no row is better in {who}", style="dim")
    cells = [
        (r["id"][:8], _short(r["input"]), _short(r["expected"]), _short(r["a"]), _short(r["b"]))
        for r in group[:_SHOWN]
    ]
    headers = ("row", "asked", "expected", data["a"], data["b"])
    more = len(group) - _SHOWN
    rest = [Text(f"and {more} more, all with --json", style="dim")] if more > 0 else []
    table = indented(simple_table(headers, cells))
    return Group(Text(f"better in {who}", style="bold"), table, *rest)


def _short(text: str | None) -> str:
    flat = " ".join((text or "–").split())
    return flat if len(flat) <= 48 else f"{flat[:47]}…"
