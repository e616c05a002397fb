"""The `tutelage` command: gathers the nouns. Heavy imports wait inside each command."""

from __future__ import annotations

from typing import Annotated

import typer

from tutelage.cli import (
    ab,
    alerts,
    compare,
    dashboard,
    deploy,
    drift,
    evaluate,
    feedback,
    guard,
    hosted,
    human,
    improve,
    judge,
    keys,
    live_evaluation,
    logs,
    mine,
    privacy,
    project,
    prompt,
    release,
    rollout,
    search,
    serve,
    train,
    usage,
    users,
    web,
)
from tutelage.cli.data import app as data

app = typer.Typer(
    name="tutelage",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Teach a general language model your domain from a few dozen expert examples, and keep "
        "it right after it ships. Start with `tutelage quickstart` or `tutelage init`."
    ),
)


def _version(asked: bool) -> None:
    if asked:
        from tutelage import __version__

        typer.echo(f"tutelage {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


for module in (
    project,
    train,
    search,
    evaluate,
    compare,
    serve,
    web,
    alerts,
    dashboard,
    usage,
):
    module.register(app)
for noun in (
    ab,
    alerts,
    data,
    deploy,
    drift,
    feedback,
    guard,
    hosted,
    human,
    improve,
    judge,
    keys,
    live_evaluation,
    logs,
    mine,
    privacy,
    prompt,
    release,
    rollout,
    users,
):
    app.add_typer(noun.app)
app.add_typer(improve.schedule_app)


def main() -> None:
    """Run the command line."""
    import os
    import sys
    import warnings

    if not {"-v", "--verbose"} & set(sys.argv):
        warnings.simplefilter("ignore")  # other people's deprecations are no news to a user
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads starve each other
    for name in ("HF_HUB_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "true")
    app()
