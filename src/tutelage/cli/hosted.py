"""`tutelage hosted …`: fine-tuning at a service, from the upload to keeping the model alive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.workflows.training.hosted_jobs import HostedDesk

app = typer.Typer(
    name="hosted", help="Fine-tune at a service that speaks OpenAI's API.", no_args_is_help=True
)
_JobArgument = Annotated[
    str | None,
    typer.Argument(help="The start of a job's name, or its id.", show_default="the newest"),
]


def _desk(project: Any, out: Any) -> HostedDesk:
    from tutelage.workflows.context import open_context
    from tutelage.workflows.training.hosted_jobs import HostedDesk

    return HostedDesk(open_context(project, out.emit))


@app.command()
def start(
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be sent and its cost, and stop.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="The rows may be uploaded.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Another job after one that failed or was cancelled.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Upload the rows and start the job; the same command again never does it twice."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.curate import curate
        from tutelage.workflows.training.hosted_jobs import HostedDesk

        ctx = open_context(project, out.emit)
        desk, dataset = HostedDesk(ctx), curate(ctx).artifact
        if plan:
            planned = desk.plan(dataset)
            out.result(planned, lambda console: _show_plan(console, planned))
            return
        started = desk.start(dataset, yes=yes, again=again)
        out.result(started, lambda console: _show_job(console, started))


@app.command()
def watch(
    job: _JobArgument = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Follow a job to its end; stopping this command does not stop the job."""
    with frame(as_json, verbose) as out:
        ended = _desk(project, out).watch(job)
        out.result(ended, lambda console: _show_job(console, ended))


@app.command()
def status(
    job: _JobArgument = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Ask the service once how a job stands."""
    with frame(as_json, verbose) as out:
        found = _desk(project, out).status(job)
        out.result(found, lambda console: _show_job(console, found))


@app.command()
def cancel(
    job: _JobArgument = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Cancel a job; one that has ended stays as it is."""
    with frame(as_json, verbose) as out:
        found = _desk(project, out).cancel(job)
        out.result(found, lambda console: _show_job(console, found))


@app.command()
def fetch(
    job: _JobArgument = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Fetch the tuned model's name, figures and tables; on Azure, deploy it."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.training.hosted_jobs import HostedDesk

        ctx = open_context(project, out.emit)
        artifact = HostedDesk(ctx).fetch(job)
        folder = ctx.path_of(artifact)
        data = {"artifact": artifact.short, "path": str(folder), **artifact.meta}
        out.result(data, lambda console: _show_model(console, data))


@app.command()
def keepalive(
    job: _JobArgument = None,
    every: Annotated[
        str | None, typer.Option("--every", help="Call only when this is over, such as 7d.")
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Call the tuned model if a call is due, so that it is not deleted as idle."""
    with frame(as_json, verbose) as out:
        found = _desk(project, out).keepalive(job, every=every)

        def show(console: Console) -> None:
            done = "called" if found["called"] else "not due yet"
            due = f", next call due {found['due_at']}" if found["due_at"] else ""
            console.print(f"{found['model']}: {done}{due}", markup=False)

        out.result(found, show)


@app.command(name="list")
def list_(
    everything: Annotated[
        bool, typer.Option("--all", help="All jobs of the account, asked of the service.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the jobs of this project as they were last seen, the newest first."""
    with frame(as_json, verbose) as out:
        desk = _desk(project, out)
        rows = desk.all_jobs() if everything else desk.jobs()

        def show(console: Console) -> None:
            from tutelage.cli.screens import simple_table

            headers = ("name", "job", "status", "model", "tuned model", "made")
            keys = ("name", "job", "status", "model", "tuned", "created_at")
            cells = [[row[key] or "–" for key in keys] for row in rows]
            console.print(simple_table(headers, cells) if cells else "no hosted jobs yet")

        out.result({"jobs": rows}, show)


def _show_plan(console: Console, plan: dict[str, Any]) -> None:
    figures = plan["estimate"]
    rows = ", ".join(f"{count:,} {split}" for split, count in plan["files"].items())
    console.print(f"to       {plan['base_url']}, {plan['model']}", markup=False)
    console.print(f"rows     {rows}", markup=False)
    epochs = f"{figures['epochs']} epochs ({figures['epochs_from']})"
    console.print(f"tokens   about {figures['billed_tokens']:,} in {epochs}", markup=False)
    cost = figures["cost"]
    price = "set hosted.price_per_million_tokens" if cost is None else f"about {cost:,.2f}"
    console.print(f"cost     {price}", markup=False)
    console.print(f"counted  {figures['counted']}", markup=False)
    for row, why in plan["rejected"].items():
        console.print(f"left out {row}: {why}", markup=False)


def _show_job(console: Console, job: dict[str, Any]) -> None:
    position = f"  step {job['step']}/{job['steps'] or '?'}" if job["step"] else ""
    console.print(f"{job['job'] or job['name']}  {job['status']}{position}", markup=False)
    if job.get("left_s") is not None:
        from tutelage.cli.screens import duration

        console.print(f"about {duration(job['left_s'])} left", markup=False)
    if job["problem"]:
        console.print(job["problem"], markup=False)
    if job["tuned"]:
        console.print(f"tuned model {job['tuned']}", markup=False)


def _show_model(console: Console, data: dict[str, Any]) -> None:
    from tutelage.cli.screens import indented, simple_table

    console.print(f"tuned model {data['tuned']}  called as {data['callable_as']}", markup=False)
    metrics = [(name.replace("_", " "), f"{v:g}") for name, v in data["metrics"].items()]
    if metrics:
        console.print(indented(simple_table(("figure", "last"), metrics)))
    billed, counted = data["trained_tokens"], data["estimate"]["billed_tokens"]
    if billed:
        console.print(f"{billed:,} tokens billed, {counted:,} estimated", markup=False)
    console.print(data["path"], markup=False)
