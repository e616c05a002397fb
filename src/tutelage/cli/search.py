"""`tutelage search`: look for better training settings than the plan's, on validation rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.workflows.training.search import SearchResult


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(search)


def search(
    trials: Annotated[int, typer.Option(min=1, help="Training runs of the search.")] = 12,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Start no more runs after this long, in all.")
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(
            help="Settings of `train` to search, with commas between: learning_rate, rank, epochs, "
            "batch_size, dropout, weight_decay, warmup, prompt_loss_weight, lora_plus, mixout, "
            "layer_decay. The learning rate goes first.",
            show_default="learning_rate,rank,epochs,batch_size",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=0, help="How often plan and best are repeated, to tell gain or luck.")
    ] = 3,
    write: Annotated[
        bool, typer.Option("--write", help="Write better settings into tutelage.yaml.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Search training settings on the validation split; a search that was cut off goes on."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.curate import curate
        from tutelage.workflows.training.search import Limits
        from tutelage.workflows.training.search import search as work
        from tutelage.workflows.training.search_write import write_overrides

        ctx = open_context(project, out.emit)
        names = [name.strip() for name in over.split(",") if name.strip()] if over else None
        found = work(ctx, curate(ctx).artifact, Limits(trials, minutes, seeds), names)
        written = bool(write and found.overrides)
        if written:
            write_overrides(ctx.workspace.config_path, found.overrides)
        data = {**found.data, "yaml": found.fragment, "written": written}
        data |= {"search": found.artifact.short, "report": str(found.report)}
        out.result(data, lambda console: _show(console, found, written))


def _show(console: Console, found: SearchResult, written: bool) -> None:
    from rich.text import Text

    from tutelage.cli.screens import indented, simple_table
    from tutelage.workflows.training.search_report import trial_rows

    header, rows = trial_rows(found.data)
    console.print(indented(simple_table(header, rows)))
    style = "bold green" if found.take else "bold yellow"
    words = "better settings" if found.take else "keep the plan"
    console.print(Text.assemble((words, style), f": {found.data['reason']}"))
    if found.take:
        head = "written into tutelage.yaml:" if written else "put this into tutelage.yaml:"
        console.print(f"{head}\n\n{found.fragment}", markup=False)
    console.print(f"report  {found.report}", markup=False, soft_wrap=True)
