"""`tutelage deploy …`: the names that clients call, and the servers behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="deploy",
    help="Deployments: names that clients call. Releases move with `tutelage rollout`.",
    no_args_is_help=True,
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What clients shall call, as `model`.")],
    release: Annotated[
        str | None,
        typer.Option("--release", "-r", help="Who answers.", show_default="the base model"),
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a deployment; a gateway that is running takes it up by itself."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.deploy import create as work

        data = work(open_context(project, out.emit), name, release)
        out.result(data, lambda console: _show_status(console, data))


@app.command(name="list")
def list_(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """List the deployments and who answers for each."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.deploy import all_deployments

        rows = all_deployments(open_context(project, out.emit))

        def show(console: Console) -> None:
            from tutelage.cli.screens import simple_table

            keys = ("name", "stable", "previous", "rollout")
            cells = [[row[key] or "–" for key in keys] for row in rows]
            headers = ("deployment", "answers", "before", "newest rollout")
            empty = "no deployments yet; `tutelage up` makes the project's"
            console.print(simple_table(headers, cells) if cells else empty)

        out.result({"deployments": rows}, show)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(show_default="the project's")] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show who answers for a deployment, and its newest rollout."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.deploy import show as work

        data = work(open_context(project, out.emit), name)
        out.result(data, lambda console: _show_status(console, data))


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A deployment other than the project's own.")],
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Remove a deployment and its rollouts' journals; the records of its requests stay."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.deploy import remove as work

        data = work(open_context(project, out.emit), name)
        text = f"removed {name}, with {data['rollouts']} ended rollouts"
        out.result(data, lambda console: console.print(text, markup=False))


@app.command()
def backends(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Ask each server under `deploy` what it is and what it can do; exit 1 if one is down."""
    with frame(as_json, verbose) as out:
        from tutelage.core.errors import EXIT_NO
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.deploy import backends as work

        data = work(open_context(project, out.emit))
        out.result(data, lambda console: _show_backends(console, data))
        if any(not row["up"] for row in data["backends"]):
            raise typer.Exit(EXIT_NO)


def _show_status(console: Console, data: dict[str, Any]) -> None:
    console.print(f"{data['deployment']}: {data['sentence']}", markup=False)
    if data["previous"]:
        console.print(f"before: {data['previous']}", markup=False)


def _show_backends(console: Console, data: dict[str, Any]) -> None:
    if not data["backends"]:
        console.print(f"the engine is {data['engine']}: there is no server to ask")
    for row in data["backends"]:
        console.print(f"{row['name']}  {row['base_url']}", markup=False)
        if not row["up"]:
            console.print(f"  down: {row['problem']}", markup=False)
            continue
        version = f", version {row['version']}" if row["version"] else ""
        adapters = "takes adapters while it runs" if row["adapters"] else "takes no adapters"
        console.print(f"  up{version}, {adapters}", markup=False)
        console.print(f"  models    {', '.join(row['models']) or 'none'}", markup=False)
        console.print(f"  releases  {', '.join(row['releases']) or 'none'}", markup=False)
        for key, value in row["figures"].items():
            shown = f"{value:.0%}" if key in _SHARES else f"{value:g}"
            console.print(f"  {key.replace('_', ' ')}  {shown}", markup=False)


_SHARES = ("kv_cache", "gpu_memory", "gpu_reserved")
