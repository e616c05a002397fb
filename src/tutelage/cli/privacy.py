"""`tutelage privacy`: what is held of a user, forgetting them, who was forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="privacy",
    help="Users' rights: what is held of one, forgetting them.",
    no_args_is_help=True,
)
_User = Annotated[
    str, typer.Option("--user", "-u", help="Their key, as requests send it in `user`.")
]


@app.command()
def show(
    user: _User,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say what the project holds of a user: records, rows, files, and models trained on them."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.forget import look_up

        found = look_up(open_context(project, out.emit), user).as_dict()
        out.result(found, lambda console: _show(console, found))


@app.command()
def forget(
    user: _User,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask; there is no undo.")] = False,
    reason: Annotated[str, typer.Option(help="Kept with the report, such as a ticket.")] = "",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Erase a user for good: records, feedback, label work, rows of every dataset version, files.

    It says which models were trained on their rows. Interrupted, run it again.
    """
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.forget import forget as work
        from tutelage.workflows.feedback.forget import look_up

        ctx = open_context(project, out.emit)
        if not yes:
            _require_terminal(as_json)
            _show(out.out, look_up(ctx, user).as_dict())
            typer.confirm("Erase all of this?", abort=True)
        done = work(ctx, user, reason=reason).as_dict()
        out.result(done, lambda console: _show(console, done))


@app.command()
def report(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """List who was forgotten: when, what was erased, which models were trained on their rows."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.feedback.forget import erasures

        rows = erasures(open_context(project, out.emit))
        out.result({"erasures": rows}, lambda console: _list(console, rows))


def _require_terminal(as_json: bool) -> None:
    import sys

    if as_json or not sys.stdin.isatty():
        raise ConfigError("this can't be undone", fix="Add --yes if you mean it")


def _show(console: Console, found: Mapping[str, Any]) -> None:
    from rich.text import Text

    from tutelage.cli.screens import indented, simple_table

    console.print("[bold]Held[/]" if found["dry_run"] else "[bold]Erased[/]")
    rows = [(name.replace("_", " "), f"{n:,}") for name, n in found["store"].items() if n]
    rows += [
        (f"rows of {one['kind']} {one['hash']}", _by_side(one["rows"])
         + (f" (now {one['replaced_by']})" if one["replaced_by"] else ""))
        for one in found["versions"]
    ]  # fmt: skip
    rows += [(name, f"{count:,} rows") for name, count in found["files"].items()]
    rows += [(name, "the whole file") for name in found["removed"]]
    if found["vectors"]:
        rows.append(("vectors of texts", f"{found['vectors']:,}"))
    console.print(indented(simple_table(("what", "how many"), rows or [("nothing", "")])))
    _show_models(console, found["models"])
    for line in found["remains"]:
        console.print(Text.assemble(("left for you: ", "yellow"), line))


def _show_models(console: Console, models: Sequence[Mapping[str, Any]]) -> None:
    from rich.text import Text

    for model in models:
        named = f" ({', '.join(model['releases'])})" if model["releases"] else ""
        serves = f"; it serves {', '.join(model['serves'])}" if model["serves"] else ""
        told = f"{model['kind']} {model['hash']}{named} was trained on {_by_side(model['rows'])}"
        console.print(Text.assemble(("knows them: ", "yellow"), f"{told}{serves}"))
    if models:
        console.print("To be rid of that, train again: tutelage run", markup=False)


def _by_side(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {side}" for side, count in rows.items())


def _list(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    from tutelage.cli.screens import simple_table

    if not rows:
        console.print("nobody was forgotten so far")
        return
    shown = [
        (
            one["at"][:16],
            one["user"][:12],
            one["state"],
            f"{one['report'].get('store', {}).get('records', 0):,}",
            ", ".join(m["hash"] for m in one["report"].get("models", [])) or "–",
            one["reason"],
        )
        for one in rows
    ]
    headers = ("when", "user (keyed hash)", "state", "records", "models that know them", "reason")
    console.print(simple_table(headers, shown))
