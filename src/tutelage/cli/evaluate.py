"""`tutelage evaluate` and `tutelage gate`: is the tuned model better, by how much, how sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.workflows.context import Context


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(evaluate)
    app.command()(gate)


def evaluate(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Compare the newest adapter with the base model, zero-shot and few-shot, on the test split."""
    with frame(as_json, verbose) as out:
        ctx, data = _evaluated(project, out)

        def show(console: Console) -> None:
            from tutelage.cli.finish import evaluation_view

            console.print(evaluation_view(data, ctx.workspace.home))

        out.result(data, show)


def gate(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Exit 0 if the evidence lets the tuned model pass, 1 if it fails, 3 if it is too little."""
    with frame(as_json, verbose) as out:
        from tutelage.cli.project import exit_by_verdict
        from tutelage.cli.screens import verdict_panel

        _, data = _evaluated(project, out)
        out.result(
            data,
            lambda console: console.print(
                verdict_panel("gate", [c["sentence"] for c in data["criteria"]], data["verdict"])
            ),
        )
        exit_by_verdict(data["verdict"])


def _evaluated(project: Any, out: Any) -> tuple[Context, dict[str, Any]]:
    from tutelage.workflows.context import open_context
    from tutelage.workflows.evaluate import evaluate as work
    from tutelage.workflows.project import require_output

    ctx = open_context(project, out.emit)
    outcome = work(ctx, require_output(ctx, "curate"), require_output(ctx, "train"))
    return ctx, {"evaluation": outcome.artifact.short, **outcome.artifact.meta}
