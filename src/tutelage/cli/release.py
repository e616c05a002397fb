"""`tutelage release …`: make, import, list, trace, verify, promote, roll back, export releases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="release", help="Base + adapter + prompt + decoding, as one thing.", no_args_is_help=True
)
NameArgument = Annotated[str, typer.Argument(help="A release's name or the start of its id.")]


@app.command()
def create(
    adapter: Annotated[
        str | None,
        typer.Argument(
            help="The start of an adapter's id, imported ones too.",
            show_default="what was trained last",
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Release even without a passing verdict.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make the release of an evaluated adapter."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.release import create as work

        outcome = work(open_context(project, out.emit), adapter, force=force)
        name = outcome.artifact.meta["name"]
        out.result(
            {"release": name, "id": outcome.artifact.hash, "skipped": outcome.skipped},
            lambda console: console.print(f"release [bold]{name}[/]  {outcome.artifact.short}"),
        )


@app.command(name="import")
def import_(
    path: Annotated[
        Path, typer.Argument(help="A PEFT adapter's folder, a model folder, or a .gguf file.")
    ],
    name: Annotated[
        str | None, typer.Option(help="What to call it.", show_default="the folder's name")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option(help="Evaluate it on the project's test rows at once.")
    ] = True,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take in a model that was tuned elsewhere and compare it with the baselines."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import release_view
        from tutelage.workflows.context import open_context
        from tutelage.workflows.outputs import require_output
        from tutelage.workflows.release.import_model import evaluate_imported, import_model

        ctx = open_context(project, out.emit)
        if evaluate:
            require_output(ctx, "curate")
        artifact = import_model(ctx, path, name)
        data = {"adapter": artifact.hash, **artifact.meta, "evaluation": None}
        if evaluate:
            found = evaluate_imported(ctx, artifact).artifact
            data["evaluation"] = {"hash": found.hash, **found.meta}
        home = ctx.workspace.home
        out.result(data, lambda console: console.print(release_view.imported(data, home)))


@app.command(name="list")
def list_(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """List the releases, newest first, and say which one serves."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.release import releases

        rows = releases(open_context(project, out.emit))

        def show(console: Console) -> None:
            from tutelage.cli.screens import clock, simple_table

            headers = ("name", "id", "kind", "serves", "made (UTC)")
            cells = [
                (r["name"], r["id"][:12], r["kind"], r["serves"], clock(r["created_at"]))
                for r in rows
            ]
            console.print(simple_table(headers, cells) if cells else "no releases yet")

        out.result({"releases": rows}, show)


@app.command()
def show(
    name: NameArgument,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what a release is made of and where it comes from."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.release import describe

        data = describe(open_context(project, out.emit), name)
        out.result(data, lambda console: console.print(data["text"], markup=False))


@app.command()
def lineage(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECORD|RELEASE|ID", help="An answer's id, a release, or any output's id."
        ),
    ],
    rows: Annotated[
        bool, typer.Option(help="With --json: every train row and its people.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Trace an answer or a release back to prompt, plan, code, rows and people."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.release_lineage import trace

        data = trace(open_context(project, out.emit), what, rows=rows)
        out.result(data, lambda console: console.out(data["text"]))


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="A release's name or id.", show_default="all of them")
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Check by hash that all a release rests on is still what was released; exit 1 if not."""
    with frame(as_json, verbose) as out:
        from tutelage.cli import release_view
        from tutelage.core.errors import EXIT_NO
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.release_verify import verify as work

        found = work(open_context(project, out.emit), name)
        ok = all(one["ok"] for one in found)
        data = {"ok": ok, "releases": found}
        out.result(data, lambda console: console.print(release_view.verified(found)))
        if not ok:
            raise typer.Exit(EXIT_NO)


@app.command()
def promote(
    name: NameArgument,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a release the stable one at once, without a canary."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.rollout import switch

        data = switch(open_context(project, out.emit), name)
        out.result(data, lambda console: console.print(data["sentence"], markup=False))


@app.command()
def rollback(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Return to the release that was stable before."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.rollout import rollback as work

        data = work(open_context(project, out.emit))
        out.result(data, lambda console: console.print(data["sentence"], markup=False))


@app.command()
def export(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[RELEASE|ADAPTER]",
            help="A release's name or id, or the start of an adapter's hash.",
            show_default="the newest release, else the newest adapter",
        ),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="adapter, merged, gguf or gguf-adapter.")
    ] = "adapter",
    out: Annotated[
        Path | None,
        typer.Option(help="A new folder for the files.", show_default="NAME-FORMAT, here"),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Of merged weights: auto (the base's), f32, f16, bf16, q8_0.")
    ] = "auto",
    prompts: Annotated[int, typer.Option(help="How many prompts must be answered alike.")] = 16,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write files for other programs; refused (exit 1) unless they answer as what was trained."""
    with frame(as_json, verbose) as out_frame:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.release.export import export as work

        ctx = open_context(project, out_frame.emit)
        done = work(ctx, what, form, out, dtype=dtype, prompts=prompts)
        data = done.as_dict()

        def show(console: Console) -> None:
            from tutelage.cli.screens import simple_table

            cells = [(name, digest[:12]) for name, digest in data["files"].items()]
            console.print(f"[bold]{data['folder']}[/]  {data['size_bytes'] / 2**20:.1f} MB")
            console.print(simple_table(("file", "SHA-256"), cells))
            if data["parity"]:
                console.print(data["parity"]["sentence"], markup=False)

        out_frame.result(data, show)
