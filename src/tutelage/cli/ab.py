"""`tutelage ab …`: which of two releases users are better off with, at any look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import EXIT_NO, EXIT_NOT_ENOUGH_EVIDENCE, EXIT_USER

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="ab", help="A/B tests of two releases: plan, list, report.", no_args_is_help=True
)
_Deployment = Annotated[
    str | None, typer.Option("--deployment", "-d", help="Its name.", show_default="the project's")
]
_Primary = Annotated[str, typer.Option(help="The metric that decides: name it before you look.")]
_Metrics = Annotated[
    str | None,
    typer.Option(help="Those beside it, as latency,escalated.", show_default="all of them"),
]
_Alpha = Annotated[float, typer.Option(help="Risk that anything said is wrong.")]
_Margin = Annotated[
    float, typer.Option(help="The smallest difference that matters, of metrics from 0 to 1.")
]
_Horizon = Annotated[int, typer.Option(help="Users it is planned for: sharpest there.")]
_EXITS = {"better": 0, "worse": EXIT_NO, "mixed": EXIT_NO, "same": EXIT_NO, "broken": EXIT_USER}


@app.command()
def report(
    deployment: _Deployment = None,
    rollout: Annotated[
        str | None, typer.Option(help="Which test, by id.", show_default="the newest")
    ] = None,
    primary: _Primary = "feedback",
    metrics: _Metrics = None,
    alpha: _Alpha = 0.05,
    margin: _Margin = 0.02,
    horizon: _Horizon = 1000,
    html: Annotated[Path | None, typer.Option(help="Write a page to this file too.")] = None,
    gate: Annotated[
        bool,
        typer.Option("--gate", help="Exit 0 only if the candidate is better; 3: open yet."),
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Compare the two releases by what users said and did, and say what more would be needed."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.ab import AbDesk

        data = AbDesk(open_context(project, out.emit)).report(
            deployment, rollout, html=html, primary=primary, metrics=_names(metrics),
            alpha=alpha, margin=margin, horizon=horizon,
        )  # fmt: skip
        out.result(data, lambda console: _show_report(console, data))
        if gate:
            raise typer.Exit(_EXITS.get(data["verdict"], EXIT_NOT_ENOUGH_EVIDENCE))


@app.command(name="list")
def list_(
    deployment: _Deployment = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the A/B tests there were, newest first."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.ab import AbDesk

        rows = AbDesk(open_context(project, out.emit)).list(deployment)
        out.result({"tests": rows}, lambda console: _show_list(console, rows))


@app.command()
def plan(
    deployment: _Deployment = None,
    split: Annotated[
        float | None,
        typer.Option(help="The candidate's percent of users.", show_default="deploy.split"),
    ] = None,
    difference: Annotated[
        float | None,
        typer.Option(help="The difference to find; of times 0.1 is 10 %.", show_default="margin"),
    ] = None,
    days: Annotated[float, typer.Option(help="Days of traffic to learn from.", min=0.01)] = 30.0,
    primary: _Primary = "feedback",
    metrics: _Metrics = None,
    alpha: _Alpha = 0.05,
    margin: _Margin = 0.02,
    horizon: _Horizon = 1000,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say how many users a test needs to find a difference, from past traffic."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.ab import AbDesk

        data = AbDesk(open_context(project, out.emit)).plan(
            deployment, split=split, difference=difference, days=days, primary=primary,
            metrics=_names(metrics), alpha=alpha, margin=margin, horizon=horizon,
        )  # fmt: skip
        out.result(data, lambda console: _show_plan(console, data))


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]


def _show_report(console: Console, data: Mapping[str, Any]) -> None:
    from tutelage.cli.screens import simple_table

    console.print(data["sentence"], style="bold", markup=False)
    for line in data["needed"]:
        console.print(line, markup=False)
    console.print(f"\nThe split: {data['balance']['sentence']}.", markup=False)
    rows = []
    for one in [data["primary"], *data["metrics"]]:
        shown = one["shown"]
        rows.append(
            (
                one["name"], one["outcome"].replace("_", " "), shown["stable"],
                shown["candidate"], shown["difference"], shown["interval"],
            )
        )  # fmt: skip
    console.print()
    headers = ("metric", "", "stable", "candidate", "difference", "interval")
    console.print(simple_table(headers, rows))
    if data["caveats"]:
        console.print("\nMind:")
    for note in data["caveats"]:
        console.print(f"  {note}", markup=False)
    if "page" in data:
        console.print(f"\n{data['page']}", markup=False)


def _show_list(console: Console, rows: list[dict[str, Any]]) -> None:
    from tutelage.cli.screens import clock, simple_table

    if not rows:
        console.print("no A/B test yet: `tutelage rollout start RELEASE --strategy ab`")
        return
    table = [
        (
            row["rollout"], row["deployment"], row["stable"], row["candidate"],
            f"{row['split']:.0%}", row["state"], clock(row["began"]),
        )
        for row in rows
    ]  # fmt: skip
    headers = ("rollout", "deployment", "stable", "candidate", "split", "state", "began (UTC)")
    console.print(simple_table(headers, table))


def _show_plan(console: Console, data: Mapping[str, Any]) -> None:
    learnt = data["learnt_from"]
    console.print(
        f"To find a difference of {data['difference']:.3g} in {data['metric']} "
        f"(now {data['mean']:.3g}) at a split of {data['split']:.0%}:"
    )
    console.print(
        f"  {data['users']:,} users, looked at whenever you like: "
        f"{data['days']:,.1f} days at {data['users_a_day']:,.0f} users a day"
    )
    console.print(f"  {data['users_if_looked_once']:,} users, if looked at once, at the end")
    console.print(
        f"  learnt from {learnt['users']:,} users of {learnt['days']:.1f} days, "
        f"{learnt['telling']:,} of whom told something of it"
    )
