"""`tutelage mine …`: what production says is worth a label, to whom it goes, corrections spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime

app = typer.Typer(
    name="mine",
    help="What production says is worth a label: ranked, with reasons, to the label queue.",
    no_args_is_help=True,
)
PeopleOption = Annotated[
    str | None, typer.Option("--to", help="Who labels them: anna,ben. They must be known.")
]
OverlapOption = Annotated[int, typer.Option("--overlap", min=1, help="Answers an item.")]
SharedOption = Annotated[bool, typer.Option("--shared", help="Whoever is free takes the next one.")]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", help="Only the last 24h, 7d, 4w.", show_default="all records"),
]
RunArgument = Annotated[
    str | None, typer.Argument(help="A look's id, from `mine list`.", show_default="the newest")
]


@app.command()
def run(
    budget: Annotated[int, typer.Option("--budget", "-n", min=1, help="Rows wanted.")] = 50,
    since: SinceOption = None,
    held_out: Annotated[
        float,
        typer.Option("--held-out", help="Share drawn at random to judge models, not to train."),
    ] = 0.15,
    explore: Annotated[
        float, typer.Option("--explore", help="Share drawn at random from what may be trained on.")
    ] = 0.05,
    to: PeopleOption = None,
    overlap: OverlapOption = 1,
    shared: SharedOption = False,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn.")] = 7,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Look at production and rank what is most worth a label, each row with its reasons.

    With --to the rows go to the label queue at once; `mine assign` gives them out later.
    """
    with frame(as_json, verbose) as out:
        from tutelage.cli import mine_view
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.mine import mine
        from tutelage.workflows.feedback.mine_queue import check_people, give_out

        ctx = open_context(project, out.emit)
        people = _names(to)
        check_people(ctx, people)
        found = mine(
            ctx, budget=budget, since=_since(since), held_out=held_out, explore=explore, seed=seed
        )
        batch = None
        if people:
            batch = give_out(ctx, found.run, people, overlap=overlap, shared=shared)
        data = {**found.as_dict(), "batch": batch["batch"] if batch else None}
        out.result(data, lambda console: mine_view.mined(console, found, batch))


@app.command()
def show(
    run: RunArgument = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show a look that was kept: its rows with their reasons, and its clusters."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import mine_view
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.mine_queue import show as shown

        found = shown(open_context(project, out.emit), run)
        out.result(found.as_dict(), lambda console: mine_view.mined(console, found, None))


@app.command("list")
def looks(
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List every look that was kept, and how much of it is labelled."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import mine_view
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.mine_queue import looks as kept

        rows = kept(open_context(project, out.emit))
        out.result({"looks": rows}, lambda console: mine_view.looks(console, rows))


@app.command()
def assign(
    to: Annotated[str, typer.Option("--to", help="Who labels them: anna,ben.")],
    run: RunArgument = None,
    overlap: OverlapOption = 1,
    shared: SharedOption = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Give the rows of a look to people, the most wanted first; they label as usual."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import mine_view
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.mine_queue import give_out

        ctx = open_context(project, out.emit)
        batch = give_out(ctx, run, _names(to), overlap=overlap, shared=shared)
        out.result(batch, lambda console: mine_view.given(console, batch))


@app.command()
def similar(
    record: Annotated[str, typer.Argument(help="The record that was corrected.")],
    label: Annotated[
        str | None,
        typer.Option("--label", help="The right label.", show_default="the record's own edit"),
    ] = None,
    answer: Annotated[
        str | None, typer.Option("--answer", help="The right answer, where it is no label.")
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", "-t", help="Cosine from which on a row is similar.")
    ] = 0.8,
    since: SinceOption = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Correct them; without it this is a preview.")
    ] = False,
    author: Annotated[str, typer.Option("--author", help="Who corrects, with --apply.")] = "",
    show: Annotated[int, typer.Option("--show", min=1, help="Rows listed.")] = 20,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show the requests that say what a corrected one says; with --apply correct them too.

    `mine undo BATCH` takes it back. Rows of the test and validation sides are never corrected so.
    """
    with frame(as_json, verbose) as out:
        from tutelage.cli import mine_view
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import mine_similar as work

        if label is not None and answer is not None:
            raise ConfigError("--label and --answer are both there", fix="Give one of them")
        ctx = open_context(project, out.emit)
        found = work.similar(
            ctx,
            record,
            correction=label if label is not None else answer,
            threshold=threshold,
            since=_since(since),
        )
        if apply:
            found = work.apply(ctx, found, author)
        out.result(found.as_dict(), lambda console: mine_view.similar(console, found, show))


@app.command()
def undo(
    batch: Annotated[str, typer.Argument(help="What `mine similar --apply` printed.")],
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take a correction of similar rows back; the first correction stays."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import mine_similar as work

        removed = work.undo(open_context(project, out.emit), batch)
        out.result(
            {"batch": batch, "removed": removed},
            lambda console: console.print(f"{removed:,} corrections of {batch} removed"),
        )


@app.command()
def applied(
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the corrections that were applied to similar rows."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import mine_view
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback import mine_similar as work

        rows = work.applied(open_context(project, out.emit))
        out.result({"applied": rows}, lambda console: mine_view.applied(console, rows))


def _names(given: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (given or "").split(",") if name.strip())


def _since(length: str | None) -> datetime | None:
    """Return when a length such as 7d began, or None."""
    if length is None:
        return None
    from datetime import timedelta

    from tutelage.core.artifact import utc_now
    from tutelage.core.durations import seconds

    try:
        return utc_now() - timedelta(seconds=seconds(length))
    except ValueError as error:
        raise ConfigError(str(error), fix="Write --since 7d") from None
