"""`tutelage human …`: people judge answers blind, by sheets that any spreadsheet opens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="human",
    help="Blind human evaluation: make a study, sheets out and in, results.",
    no_args_is_help=True,
)
StudyOption = Annotated[
    str | None, typer.Option("--study", help="Start of a study's id.", show_default="the newest")
]


@app.command()
def new(
    to: Annotated[str, typer.Option("--to", help="Who judges: anna,ben.")],
    candidates: Annotated[
        str | None,
        typer.Option(help="Whose answers: tuned,base.", show_default="tuned and the better base"),
    ] = None,
    rubric: Annotated[
        Path | None,
        typer.Option(help="YAML list of criteria with levels; without it two answers compete."),
    ] = None,
    sample: Annotated[
        str, typer.Option(help="Rows to draw: differ, all, random or stratified.")
    ] = "differ",
    rows: Annotated[int | None, typer.Option(help="Rows, at most.", show_default="all")] = None,
    overlap: Annotated[int, typer.Option(help="People who judge each row.")] = 1,
    shared: Annotated[
        bool, typer.Option("--shared", help="Whoever is free takes the next row.")
    ] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Show the reference answer too.")
    ] = False,
    evaluation: Annotated[
        str | None, typer.Option(help="Start of its hash.", show_default="the newest")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample and the orders.")] = 7,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a study over the answers of an evaluation."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.evaluation.human import Order, new_study

        order = Order(
            people=_names(to),
            candidates=_names(candidates),
            rubric=rubric,
            sample=sample,  # type: ignore[arg-type]  # checked there
            rows=rows,
            overlap=overlap,
            shared=shared,
            reference=reference,
            evaluation=evaluation,
            seed=seed,
        )
        made = new_study(open_context(project, out.emit), order)

        def show(console: Console) -> None:
            from tutelage.cli.human_view import study_lines

            for line in study_lines(made):
                console.print(line, markup=False)

        out.result(made, show)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="A .csv; with several raters FILE-NAME.csv each.")],
    rater: Annotated[
        str | None, typer.Option(help="Whose sheet: anna,ben.", show_default="everybody's")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(help="Rows a sheet, at most.", show_default="all")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file.")] = False,
    study: StudyOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write a blind sheet for each rater, of what they have left to judge."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.evaluation.human_sheets import export as work

        ctx = open_context(project, out.emit)
        made = work(ctx, file, study=study, raters=_names(rater), rows=rows, force=force)

        def show(console: Console) -> None:
            for one in made["files"]:
                line = f"{one['path']}: {one['rows']} rows for {one['rater']}"
                console.print(line, markup=False, soft_wrap=True)

        out.result(made, show)


@app.command(name="import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="Filled sheets.")],
    study: StudyOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Keep the judgements of filled sheets; rows that can't be used go to a file of their own."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.evaluation.human_sheets import import_sheet

        ctx = open_context(project, out.emit)
        read = [import_sheet(ctx, file, study=study) for file in files]

        def show(console: Console) -> None:
            from tutelage.cli.human_view import import_lines

            for line in import_lines(read):
                console.print(line, markup=False, soft_wrap=True)

        out.result({"files": read}, show)


@app.command()
def status(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """List the studies and how far each rater is."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.evaluation.human_results import status as work

        studies = work(open_context(project, out.emit))

        def show(console: Console) -> None:
            from tutelage.cli.human_view import status_parts

            for part in status_parts(studies):
                console.print(part)

        out.result({"studies": studies}, show)


@app.command()
def results(
    study: StudyOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Print what the judgements come to, with intervals, agreement and each rater's leaning."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.evaluation.human_results import results as work

        found: dict[str, Any] = work(open_context(project, out.emit), study)

        def show(console: Console) -> None:
            from tutelage.cli.human_view import results_parts

            for part in results_parts(found):
                console.print(part)

        out.result(found, show)


@app.command()
def undo(
    rater: Annotated[str, typer.Option(help="Whose newest judgement.")],
    study: StudyOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take back a rater's newest judgement; it is kept, but no longer counts."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.evaluation.human_answer import undo as work

        taken = work(open_context(project, out.emit), rater, study)
        said = f"taken back: {taken}" if taken else f"{rater} has judged nothing"
        out.result({"undone": taken}, lambda console: console.print(said, markup=False))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
