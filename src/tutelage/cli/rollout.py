"""`tutelage rollout …`: move traffic to a release step by step, on evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="rollout",
    help="Move traffic to a release: canary, blue-green, rolling, A/B, shadow.",
    no_args_is_help=True,
)

DeploymentOption = Annotated[
    str | None,
    typer.Option("--deployment", "-d", help="Its name.", show_default="the project's"),
]
RolloutOption = Annotated[
    str | None,
    typer.Option("--rollout", help="Refuse if another rollout than this id is under way."),
]


def _show(data: Mapping[str, Any]) -> Any:
    def show(console: Console) -> None:
        from tutelage.cli.rollout_view import rollout_view

        console.print(rollout_view(data))

    return show


@app.command()
def start(
    release: Annotated[str, typer.Argument(help="The release that shall get traffic.")],
    deployment: DeploymentOption = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="canary, blue_green, rolling, ab, shadow, or a plug-in.",
            show_default="deploy.strategy",
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(help="A canary's steps in percent, as 5,50,100.", show_default="the settings"),
    ] = None,
    split: Annotated[
        float | None,
        typer.Option(help="An A/B's percent of users.", show_default="the settings"),
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Start moving traffic to a release."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.rollout import start as work

        ctx = open_context(project, out.emit)
        data = work(ctx, release, deployment, strategy=strategy, steps=_numbers(steps), split=split)
        out.result(data, _show(data))


@app.command()
def status(
    deployment: DeploymentOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show the rollout: its step, its evidence, what that can't show, its journal."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.rollout import status as work

        data = work(open_context(project, out.emit), deployment)
        out.result(data, _show(data))


@app.command(name="list")
def list_(
    deployment: DeploymentOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the rollouts there were, newest first, and how each ended."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.rollout import history

        rows = history(open_context(project, out.emit), deployment)

        def show(console: Console) -> None:
            from tutelage.cli.rollout_view import history_view

            console.print(history_view(rows))

        out.result({"rollouts": rows}, show)


@app.command()
def promote(
    deployment: DeploymentOption = None,
    rollout: RolloutOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Give the candidate all traffic now."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.rollout import promote as work

        data = work(open_context(project, out.emit), deployment, rollout=rollout)
        out.result(data, _show(data))


@app.command()
def abort(
    deployment: DeploymentOption = None,
    rollout: RolloutOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take the candidate's traffic away and keep the stable release."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.rollout import abort as work

        data = work(open_context(project, out.emit), deployment, rollout=rollout)
        out.result(data, _show(data))


@app.command()
def pause(
    deployment: DeploymentOption = None,
    rollout: RolloutOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take no further step until `rollout resume`; harm still rolls it back."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.rollout import pause as work

        data = work(open_context(project, out.emit), deployment, rollout=rollout)
        out.result(data, _show(data))


@app.command()
def resume(
    deployment: DeploymentOption = None,
    rollout: RolloutOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Let a paused or frozen rollout go on from its step."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.rollout import resume as work

        data = work(open_context(project, out.emit), deployment, rollout=rollout)
        out.result(data, _show(data))


@app.command()
def rollback(
    deployment: DeploymentOption = None,
    rollout: RolloutOption = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="The release that shall answer; refuse if it is another."),
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """End the rollout under way; without one, return to the release before."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.rollout import rollback as work

        data = work(open_context(project, out.emit), deployment, rollout=rollout, to=to)
        out.result(data, _show(data))


def _numbers(text: str | None) -> list[float] | None:
    """Return the numbers of a list with commas; raise DataError if one is none."""
    if text is None:
        return None
    from tutelage.core.errors import DataError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise DataError(
            f"--steps {text!r} is no list of numbers", fix="Write percents, as --steps 5,50,100"
        ) from None
