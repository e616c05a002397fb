"""`tutelage data leaks`: what the version certifies, two files compared, benchmarks kept out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, Frame, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the command to `tutelage data`."""
    app.command()(leaks)


def leaks(
    train: Annotated[
        Path | None, typer.Argument(help="Training texts: .txt a line each, or rows.")
    ] = None,
    test: Annotated[Path | None, typer.Argument(help="Test texts in the same forms.")] = None,
    benchmark: Annotated[
        list[Path] | None,
        typer.Option("--benchmark", help="A file of test texts that train may not hold; repeat."),
    ] = None,
    semantic: Annotated[
        str | None,
        typer.Option("--semantic", help="Count twins by meaning with this embedder too."),
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Count test texts with a twin in train; without files, what the newest version certifies.

    With --benchmark: training rows of the version, or of TRAIN, that a benchmark holds. Exit 1
    if anything leaks.
    """
    with frame(as_json, verbose) as out:
        if test is not None and benchmark:
            raise ConfigError("two questions at once", fix="Give TEST or --benchmark")
        if semantic is not None and test is None:
            fix = "Give TRAIN and TEST, or set data.splits.semantic for the version's certificate"
            raise ConfigError("--semantic compares two files", fix=fix)
        if benchmark:
            leaky = _benchmarks(out, benchmark, train, project)
        elif train is None:
            leaky = _version(out, project)
        elif test is None:
            raise ConfigError("there is nothing to compare with", fix="Name TEST or --benchmark")
        else:
            leaky = _files(out, train, test, semantic)
        if leaky:
            raise typer.Exit(1)


def _files(out: Frame, train: Path, test: Path, semantic: str | None) -> bool:
    from tutelage.workflows.data import leaks as work

    found = work.between_files(train, test, semantic)
    out.result(found.as_dict(), lambda console: console.print(found.text(), markup=False))
    return not found.clean


def _version(out: Frame, project: Path) -> bool:
    from tutelage.workflows.context import open_context
    from tutelage.workflows.data import leaks as work

    found = work.of_version(open_context(project, out.emit))

    def draw(console: Console) -> None:
        from tutelage.cli.screens import indented, simple_table

        console.print(f"dataset [bold]{found['dataset']}[/]")
        rows = [
            (
                name.replace("-", " and "),
                leak["train_rows"],
                leak["test_rows"],
                leak["exact"],
                leak["near"],
                "–" if leak.get("semantic") is None else leak["semantic"],
            )
            for name, leak in found["leaks"].items()
        ]
        head = ("sides", "rows", "against", "exact", "near", "semantic")
        console.print(indented(simple_table(head, rows)))

    out.result(found, draw)
    return any(leak["exact"] or leak["near"] for leak in found["leaks"].values())


def _benchmarks(out: Frame, files: list[Path], train: Path | None, project: Path) -> bool:
    from tutelage.workflows.context import open_context
    from tutelage.workflows.data import leaks as work

    ctx = open_context(project, out.emit) if train is None else None
    found = work.benchmarks(files, ctx=ctx, train=train)
    out.result(found, lambda console: _draw(console, found))
    return bool(found["matches"])


def _draw(console: Console, found: dict[str, Any]) -> None:
    console.print(
        f"{found['rows']:,} training rows against {found['texts']:,} benchmark texts: "
        f"{found['exact']:,} exact, {found['near']:,} near, {found['overlap']:,} by shared words"
    )
    for item in found["found"][:_SHOWN]:
        text = " ".join(item["input"].split())[:80]
        console.print(f"  {item['row']} {item['reason']}: {text}", markup=False)
    more = found["matches"] - _SHOWN
    if more > 0:
        console.print(f"  and {more:,} more; --json lists all")
    if found["matches"]:
        console.print("Name the files in data.benchmarks, and the next version leaves these out.")
