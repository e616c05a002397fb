"""`tutelage improve …` and `tutelage schedule …`: turns of the loop, by hand or by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="improve",
    help="One turn of the loop: mine, review, new data set, train, gate, release, canary.",
)
schedule_app = typer.Typer(
    name="schedule", help="When the loop turns by itself.", no_args_is_help=True
)
WhyOption = Annotated[str, typer.Option("--why", help="The reason, for the journal.")]
_EXIT = {"kept": 1}
TurnOption = Annotated[str | None, typer.Option("--turn", help="Its id.", show_default="newest")]


def _show(data: Mapping[str, Any]) -> Any:
    def show(console: Console) -> None:
        from tutelage.cli.improve_view import turn_view

        console.print(turn_view(data))

    return show


def _work(
    project: Path, as_json: bool, verbose: bool, *, why: str | None, accept: bool | None,
    reason: str = "", only_resume: bool = False,
) -> None:  # fmt: skip
    """Go on with a turn and print it; the exit status says how it ended."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.improve import improve as work

        ctx = open_context(project, out.emit)
        if accept is not None:
            work.decide(ctx, accept, why=reason)
        turn = work.resume(ctx) if only_resume else work.improve(ctx, why=why or work.BY_HAND)
        data = work.status(ctx, turn.id)
        out.result(data, _show(data))
        if turn.state == "gate" and turn.waits:
            raise typer.Exit(3)
        if turn.state in _EXIT:
            raise typer.Exit(_EXIT[turn.state])


@app.callback(invoke_without_command=True)
def improve(
    context: typer.Context,
    why: WhyOption = "",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Begin a turn of the loop, or go on with the one under way, until it waits or ends.

    Exit codes: 0 released or waiting, 1 the stable release stays, 3 a person must decide.
    """
    if context.invoked_subcommand is None:
        _work(project, as_json, verbose, why=why, accept=None)


@app.command()
def resume(
    accept: Annotated[
        bool, typer.Option("--accept", help="Go on although answers, budget or evidence lack.")
    ] = False,
    reject: Annotated[
        bool, typer.Option("--reject", help="End the turn; the stable release stays.")
    ] = False,
    why: WhyOption = "",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Go on with the turn under way, with a decision if it waits for one."""
    if accept and reject:
        raise typer.BadParameter("give --accept or --reject, not both")
    decision = True if accept else False if reject else None
    _work(project, as_json, verbose, why=None, accept=decision, reason=why, only_resume=True)


@app.command()
def status(
    turn: TurnOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show a turn: where it stands, what it waits for, and its journal."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.improve.improve import status as work

        data = work(open_context(project, out.emit), turn)
        out.result(data, _show(data))


@app.command()
def cancel(
    why: WhyOption = "",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Give the turn under way up; labels and data sets stay."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.improve import improve as work

        ctx = open_context(project, out.emit)
        data = work.status(ctx, work.cancel(ctx, why=why).id)
        out.result(data, _show(data))


@app.command()
def history(
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the turns there were, newest first, and how each ended."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.improve.improve import history as work

        rows = work(open_context(project, out.emit))

        def show(console: Console) -> None:
            from tutelage.cli.improve_view import history_view

            console.print(history_view(rows))

        out.result({"turns": rows}, show)


@schedule_app.command(name="show")
def show_schedule(
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what starts a turn, whether one is due, and which turns the schedule began."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.improve.schedule import show as work

        data = work(open_context(project, out.emit))

        def show(console: Console) -> None:
            from tutelage.cli.improve_view import schedule_view

            console.print(schedule_view(data))

        out.result(data, show)


@schedule_app.command()
def run(
    once: Annotated[bool, typer.Option("--once", help="Look once, then end.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Begin turns when they are due, as `tutelage up` does; for cron, with --once."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.improve.schedule import act, watch

        ctx = open_context(project, out.emit)
        data = (act(ctx) if once else watch(ctx)).as_dict()
        out.result(data, lambda console: console.print(data["reason"], soft_wrap=True))
