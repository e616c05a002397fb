"""`tutelage judge …`: models that mark answers, and whether experts agree with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.workflows.evaluation.judge_desk import JudgeDesk

app = typer.Typer(
    name="judge",
    help="Have models mark answers, and measure them against experts.",
    no_args_is_help=True,
)
_ModeOption = Annotated[
    str | None,
    typer.Option("--mode", help="pointwise or pairwise.", show_default="as evaluate.judge says"),
]
_EvaluationOption = Annotated[
    str | None,
    typer.Option("--evaluation", help="The start of an evaluation's hash.",
                 show_default="the newest"),
]  # fmt: skip
_AgainstOption = Annotated[
    list[str] | None,
    typer.Option("--against", help="Pairwise: whose answers tuned's are held against."),
]
_RowsOption = Annotated[
    int | None, typer.Option("--rows", min=1, help="Test rows that are judged.", show_default="all")
]


def _desk(project: Any, out: Any) -> JudgeDesk:
    from tutelage.workflows.context import open_context
    from tutelage.workflows.evaluation.judge_desk import JudgeDesk

    return JudgeDesk(open_context(project, out.emit))


@app.command()
def run(
    mode: _ModeOption = None,
    against: _AgainstOption = None,
    rows: _RowsOption = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="Budget of all verdicts in tokens.")
    ] = None,
    money: Annotated[
        float | None, typer.Option("--money", min=0, help="The same in money.")
    ] = None,
    evaluation: _EvaluationOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Have an evaluation's answers judged; a run that was cut off asks nothing twice."""
    with frame(as_json, verbose) as out:
        found = _desk(project, out).run(
            mode=_mode(mode), against=against or (), rows=rows, tokens=tokens, money=money,
            evaluation=evaluation,
        )  # fmt: skip
        out.result(found, lambda console: _show(console, found))


@app.command()
def show(
    mode: _ModeOption = None,
    against: _AgainstOption = None,
    rows: _RowsOption = None,
    evaluation: _EvaluationOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what the judges said so far, and whether their scores may gate; nobody is asked."""
    with frame(as_json, verbose) as out:
        desk, names = _desk(project, out), against or ()
        found = desk.show(mode=_mode(mode), against=names, rows=rows, evaluation=evaluation)
        out.result(found, lambda console: _show(console, found))


@app.command()
def agreement(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Experts' verdicts: CSV, TSV or JSONL with item, verdict, and where needed "
            "candidate, criterion, expert.",
            show_default="the studies of `tutelage human`",
        ),
    ] = None,
    mode: _ModeOption = None,
    evaluation: _EvaluationOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Measure the judges against experts: exit 0 if they may gate, 1 if not, 3 on too few rows."""
    with frame(as_json, verbose) as out:
        from tutelage.core.errors import EXIT_NO, EXIT_NOT_ENOUGH_EVIDENCE

        found = _desk(project, out).agreement(file, mode=_mode(mode), evaluation=evaluation)
        out.result(found, lambda console: _show_agreement(console, found))
        if not found["may_gate"]:
            raise typer.Exit(EXIT_NO if found["enough"] else EXIT_NOT_ENOUGH_EVIDENCE)


@app.command()
def rubric(
    mode: _ModeOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Print the criteria that are asked, as YAML for tutelage.yaml or for `tutelage human new`."""
    with frame(as_json, verbose) as out:
        text = _desk(project, out).rubric(_mode(mode))
        out.result({"yaml": text}, lambda _: typer.echo(text, nl=False))


def _mode(text: str | None) -> Any:
    if text not in (None, "pointwise", "pairwise"):
        from tutelage.core.errors import ConfigError

        raise ConfigError(f"there is no mode {text!r}", fix="Use pointwise or pairwise")
    return text


def _show(console: Console, found: dict[str, Any]) -> None:
    from tutelage.cli.judge_view import judged_lines

    for line in judged_lines(found):
        console.print(line)


def _show_agreement(console: Console, found: dict[str, Any]) -> None:
    from tutelage.cli.judge_view import agreement_lines

    for line in agreement_lines(found):
        console.print(line)
