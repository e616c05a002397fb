"""`tutelage events` and `tutelage alerts …`: what happened to what is served, and who was told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, Frame, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from tutelage.workflows.context import Context

app = typer.Typer(
    name="alerts",
    help="What fires, by which rules, who was told; silences; a test.",
    no_args_is_help=True,
)
DeploymentOption = Annotated[
    str | None, typer.Option("--deployment", help="Only this deployment.", show_default="all")
]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="Rows shown.")]


def register(root: typer.Typer) -> None:
    """Add this module's top-level command."""
    root.command()(events)


def events(
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="A kind or its topic, such as rollout.", show_default="all"),
    ] = None,
    deployment: DeploymentOption = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only the last 30m, 24h, 7d.", show_default="all")
    ] = None,
    limit: LimitOption = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new ones until Ctrl-C.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what happened to what is served: rollouts, engine, budgets, drift, alerts.

    With --follow and --json, one JSON object a line.
    """
    with frame(as_json, verbose) as out:
        from tutelage.cli import alerts_view
        from tutelage.workflows.serving import monitor

        ctx = _open(project, out)
        rows = monitor.events(ctx, kind=kind, deployment=deployment, since=since, limit=limit)
        if follow:
            _follow(out, ctx, rows, kind=kind, deployment=deployment)
            return
        picked = any((kind, deployment, since))
        out.result(
            {"events": rows},
            lambda console: console.print(alerts_view.events(rows, picked=picked)),
        )


def _follow(
    out: Frame,
    ctx: Context,
    rows: list[dict[str, Any]],
    *,
    kind: str | None,
    deployment: str | None,
) -> None:
    from tutelage.cli import alerts_view
    from tutelage.workflows.serving import monitor

    console = out.out
    after = 0

    def show(row: dict[str, Any]) -> None:
        if out.as_json:
            typer.echo(json.dumps(row, ensure_ascii=False, default=str))
        else:
            console.print(alerts_view.event_line(row))

    for row in rows:
        show(row)
        after = row["id"]
    for row in monitor.follow(ctx, after, kind=kind, deployment=deployment):
        show(row)


@app.command(name="list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Those that have ended too.")] = False,
    limit: LimitOption = 50,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show the alerts that fire, and the silences in force."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import alerts_view
        from tutelage.workflows.serving import monitor

        data = monitor.alerts(_open(project, out), ended=everything, limit=limit)
        out.result(data, lambda console: console.print(alerts_view.alerts(data)))


@app.command()
def rules(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Show the rules in force, built in and the project's own; say what is wrong with one."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import alerts_view
        from tutelage.workflows.serving import monitor

        rows = monitor.rules(_open(project, out))
        out.result({"rules": rows}, lambda console: console.print(alerts_view.rules(rows)))


@app.command()
def measures(as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """List what a rule may compare: measures, and the metrics of /metrics."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import alerts_view
        from tutelage.workflows.serving import monitor

        rows = monitor.measures()
        out.result({"measures": rows}, lambda console: console.print(alerts_view.measures(rows)))


@app.command()
def notices(
    limit: LimitOption = 50,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what webhooks were told, what waits, and what failed."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import alerts_view
        from tutelage.workflows.serving import monitor

        rows = monitor.notices(_open(project, out), limit)
        out.result({"notices": rows}, lambda console: console.print(alerts_view.notices(rows)))


@app.command()
def test(
    webhook: Annotated[
        str | None, typer.Argument(help="The webhook to try.", show_default="all")
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Send a test notice to the webhooks now; exit 1 if one does not take it."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import alerts_view
        from tutelage.workflows.serving import monitor

        rows = monitor.send_test(_open(project, out), webhook)
        out.result({"tests": rows}, lambda console: console.print(alerts_view.tests(rows)))
        if not all(row["delivered"] for row in rows):
            raise typer.Exit(1)


@app.command()
def silence(
    rule: Annotated[str, typer.Argument(help="A rule's name, or a pattern with *.")],
    length: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 7d.")] = "1h",
    deployment: DeploymentOption = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; others see it.")] = "",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Tell no webhook of a rule's alerts for a while. They are still listed."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.serving import monitor

        ctx = _open(project, out)
        row = monitor.silence(ctx, rule, length, deployment=deployment, reason=reason)
        out.result(row, lambda console: console.print(f"{rule} is silent until {row['until']}"))


@app.command()
def unsilence(
    rule: Annotated[str, typer.Argument(help="The name or pattern that was silenced.")],
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """End a silence now."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.serving import monitor

        data = monitor.unsilence(_open(project, out), rule)
        out.result(data, lambda console: console.print(f"{rule} is told of again"))


def _open(project: Path, out: Frame) -> Context:
    from tutelage.workflows.context import open_context

    return open_context(project, out.emit)
