"""`tutelage train`: show the plan, or carry it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.frame import HERE, Frame, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.core.artifact import Artifact
    from tutelage.workflows.context import Context


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(train)


def train(
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan and stop.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Allow the upload that train.method: hosted needs.")
    ] = False,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Write the job for processes that you start.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train on the frozen dataset version; a run that was cut off goes on where it was."""
    with frame(as_json, verbose) as out:
        from tutelage.core.errors import ConfigError
        from tutelage.workflows.context import open_context
        from tutelage.workflows.curate import curate
        from tutelage.workflows.training.stages import planned
        from tutelage.workflows.training.train import train as work

        ctx = open_context(project, out.emit)
        dataset = curate(ctx).artifact
        if plan and ctx.config.train.method == "hosted":
            raise ConfigError(
                "a service plans its own run",
                where="train.method",
                fix="Run `tutelage hosted start --plan` for rows, tokens and cost",
            )
        if plan:
            before, own = planned(ctx, dataset)
            stages = [stage.model_dump(mode="json") for stage in before]
            made = own.model_dump(mode="json")
            names = [", ".join(stage.sources) for stage in ctx.config.train.before]

            def show_plan(console: Console) -> None:
                from tutelage.cli.plan_view import plan_view

                parts = zip([*names, "the project's own rows"], [*stages, made], strict=True)
                for number, (name, part) in enumerate(parts, start=1):
                    if stages:
                        head = f"stage {number} of {len(stages) + 1}: {name}"
                        console.print(head, style="bold", markup=False, highlight=False)
                    console.print(plan_view(part))

            out.result({**made, "stages": stages} if stages else made, show_plan)
            if any(each.get("refusal") for each in (*stages, made)):
                raise typer.Exit(1)
            return
        if prepare:
            _prepare(out, ctx, dataset)
            return
        outcome = work(ctx, dataset, yes=yes)
        folder = ctx.path_of(outcome.artifact)

        def show(console: Console) -> None:
            console.print(f"adapter [bold]{outcome.artifact.short}[/]  {folder}")

        out.result(
            {"adapter": outcome.artifact.short, "path": str(folder), **outcome.artifact.meta}, show
        )


def _prepare(out: Frame, ctx: Context, dataset: Artifact) -> None:
    """Write the job's files and print the command that each machine runs."""
    from tutelage.workflows.training.train import prepare

    folder = prepare(ctx, dataset)
    command = (
        "torchrun --nnodes N --nproc-per-node GPUS --rdzv-backend c10d "
        f"--rdzv-endpoint HOST:29500 -m tutelage.training.worker {folder}"
    )

    def show(console: Console) -> None:
        console.print(f"job [bold]{folder}[/]\nOn each machine: {command}", soft_wrap=True)
        console.print("When they are done, `tutelage train` files the result.")

    out.result({"run_dir": str(folder), "command": command}, show)
