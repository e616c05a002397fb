"""`tutelage live …`: scores of served answers, what they say of a release, the worst answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import EXIT_NO

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="live", help="Scores of served answers: report, run, worst.", no_args_is_help=True
)
_Release = Annotated[
    str | None, typer.Option(help="A release's name or id.", show_default="every one")
]
_SHOWN = 200  # characters of a text that are printed


@app.command()
def report(
    release: _Release = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 if a release that serves is proven worse.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show each release's mean scores with bounds, and which are proven worse."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.live_desk import LiveDesk

        data = LiveDesk(open_context(project, out.emit)).report(release)
        out.result(data, lambda console: _show_report(console, data))
        if check and any(one["fallen"] and one["serves"] for one in data["releases"]):
            raise typer.Exit(EXIT_NO)


@app.command()
def run(
    since: Annotated[str, typer.Option(help="How far back to go: 30m, 24h, 7d.")] = "24h",
    share: Annotated[
        float | None,
        typer.Option(
            help="Share of the answers, 0 to 1.", min=0, max=1,
            show_default="live_evaluation.share",
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            help="The judge's tokens of this day, those spent before included.", min=0,
            show_default="live_evaluation.tokens",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Stop after about so many answers.", min=1)
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:  # fmt: skip
    """Score logged answers now, without a gateway; run it again to go on."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.live_desk import LiveDesk

        desk = LiveDesk(open_context(project, out.emit))
        data = desk.run(since=since, share=share, tokens=tokens, limit=limit)
        out.result(data, lambda console: _show_run(console, data))


@app.command()
def worst(
    metric: Annotated[str | None, typer.Option(help="Of one metric only.")] = None,
    release: _Release = None,
    since: Annotated[str, typer.Option(help="How far back to look: 24h, 7d.")] = "7d",
    limit: Annotated[int, typer.Option(help="How many answers.", min=1)] = 20,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show the answers with the lowest scores, and why they have them."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.live_desk import LiveDesk

        desk = LiveDesk(open_context(project, out.emit))
        data = desk.worst(metric=metric, release=release, since=since, limit=limit)
        out.result(data, lambda console: _show_worst(console, data))


def _show_report(console: Console, data: Mapping[str, Any]) -> None:
    if not data["on"]:
        console.print("live evaluation is off: `live_evaluation: {}` in tutelage.yaml turns it on")
    for one in data["releases"]:
        state = "serves" if one["serves"] else "served before"
        after = f", after {one['before']}" if one["before"] else ""
        head = f"{one['deployment']}, {one['release']} ({state}{after})"
        console.print(head, markup=False)
        for metric in one["metrics"]:
            sign = "!" if metric["fallen"] else " "
            console.print(f" {sign} {metric['sentence']}", markup=False, soft_wrap=True)
    if not data["releases"]:
        console.print("no answer has been scored yet")
    drawn = data["drawn"]
    console.print(f"{drawn['scored']:,} answers are scored, {drawn['waiting']:,} wait")
    for reason, count in drawn["skipped"].items():
        console.print(f"{count:,} were left out: {reason}", markup=False)
    _show_judge(console, data["judge"])


def _show_judge(console: Console, judge: Mapping[str, Any] | None) -> None:
    if judge is None:
        return
    today, most = judge["tokens_today"], judge["tokens_a_day"]
    told = f"the judge took {today:,} of {most:,} tokens today"
    console.print(f"{told}, and may take {judge['tokens_so_far']:,} by now")
    if not judge["trusted"]:
        console.print(f"its marks are not proven: {judge['why']}", markup=False, soft_wrap=True)


def _show_run(console: Console, data: Mapping[str, Any]) -> None:
    told = f"{data['scored']:,} answers scored, {data['judged']:,} of them by the judge"
    console.print(f"{told} for {data['tokens']:,} tokens")
    if data["skipped"]:
        console.print(f"{data['skipped']:,} were left out; `tutelage live report` says why")
    if data["waiting"]:
        console.print(f"{data['waiting']:,} wait; run it again to go on")


def _show_worst(console: Console, data: Mapping[str, Any]) -> None:
    for one in data["answers"]:
        head = f"{one['value']:.2f} {one['metric']}, {one['release']}, {one['record']}"
        why = f": {one['why']}" if one["why"] else ""
        console.print(f"{head}{why}", markup=False, soft_wrap=True)
        console.print(f"    asked     {_short(one['request'])}", markup=False, soft_wrap=True)
        console.print(f"    answered  {_short(one['answer'])}", markup=False, soft_wrap=True)
    if not data["answers"]:
        console.print("no answer scored below 1")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
