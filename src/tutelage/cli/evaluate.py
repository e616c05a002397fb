"""`tutelage evaluate` and `tutelage gate`: is a candidate better, by how much, how sure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from tutelage.workflows.context import Context

AgainstOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Who must be beaten: base, few_shot, stable, a release, an adapter's id. Repeatable.",
        show_default="evaluate.against",
    ),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(evaluate)
    app.command()(gate)


def evaluate(
    candidates: Annotated[
        list[str] | None,
        typer.Argument(
            help="Adapters' ids, releases, folders, base or stable.",
            show_default="the newest adapter",
        ),
    ] = None,
    against: AgainstOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Compare candidates with base, few-shot and the stable release on the test split."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.evaluation.evaluate import evaluate_named

        ctx = open_context(project, out.emit)
        outcomes = evaluate_named(ctx, candidates or (), against=against)
        found = [{"evaluation": o.artifact.short, **o.artifact.meta} for o in outcomes]
        data = found[0] if len(found) == 1 else {"evaluations": found}

        def show(console: Console) -> None:
            from tutelage.cli.finish import evaluation_view

            if len(found) > 1:
                console.print(_several(found))
            for one in found:
                console.print(evaluation_view(one, ctx.workspace.home))

        out.result(data, show)


def _several(found: list[dict[str, Any]]) -> RenderableType:
    """Return a row a candidate: its score, its gain over what it must beat, its verdict."""
    from tutelage.cli.screens import indented, simple_table, verdict_text

    def percent(value: float | None, form: str = ".1%") -> str:
        return "–" if value is None else format(value, form)

    rows = [
        (
            one["candidate"]["name"],
            percent(one["primary"]["tuned"] or one["primary"]["base"]),
            percent(one["primary"]["difference"], "+.1%"),
            one["primary"]["against"],
            verdict_text(one["verdict"]),
        )
        for one in found
    ]
    headers = ("candidate", found[0]["primary"]["metric"], "gain", "over", "verdict")
    return indented(simple_table(headers, rows))


def gate(
    candidate: Annotated[
        str | None,
        typer.Argument(
            help="An adapter's id, a release or a folder.", show_default="the newest adapter"
        ),
    ] = None,
    evaluation: Annotated[
        str | None, typer.Option(help="Judge this evaluation again; no model is asked.")
    ] = None,
    against: AgainstOption = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write the criteria as JUnit XML to this file.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the verdict as Markdown to this file.")
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Exit 0 if the evidence lets the candidate pass, 1 if it fails, 3 if it is too little."""
    with frame(as_json, verbose) as out:
        from tutelage.cli.project import exit_by_verdict
        from tutelage.cli.screens import verdict_panel
        from tutelage.workflows.context import open_context

        ctx = open_context(project, out.emit)
        data = _judged(ctx, candidate, evaluation, against)
        _write(data, ctx.config.name, junit, markdown)
        out.result(
            data,
            lambda console: console.print(
                verdict_panel("gate", [c["sentence"] for c in data["criteria"]], data["verdict"])
            ),
        )
        exit_by_verdict(data["verdict"])


def _judged(
    ctx: Context, candidate: str | None, evaluation: str | None, against: list[str] | None
) -> dict[str, Any]:
    """Return the verdict's document: of an evaluation that is there, or of one made now."""
    from tutelage.core.errors import DataError
    from tutelage.workflows.evaluation import gate as work
    from tutelage.workflows.evaluation.evaluate import evaluate_named

    if candidate and evaluation:
        raise DataError("give either a candidate or --evaluation", fix="Leave one of them out")
    if evaluation is None:
        names = (candidate,) if candidate else ()
        artifact = evaluate_named(ctx, names, against=against)[0].artifact
        return {"evaluation": artifact.short, **artifact.meta}
    artifact = work.find_evaluation(ctx, evaluation)
    verdict = work.verdict_document(work.gate(ctx, artifact, against=against))
    return {"evaluation": artifact.short, **artifact.meta, **verdict}


def _write(data: dict[str, Any], name: str, junit: Path | None, markdown: Path | None) -> None:
    from tutelage.core.workspace import atomic_write
    from tutelage.evaluation.gate_reports import as_junit, as_markdown

    for path, render in ((junit, as_junit), (markdown, as_markdown)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, render(data, name).encode())
