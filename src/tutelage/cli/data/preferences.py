"""`tutelage data pairs`: what people prefer, where it comes from, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 40  # characters of an answer in a list


def register(app: typer.Typer) -> None:
    """Add the commands to `tutelage data`."""
    app.command()(pairs)


def pairs(
    add: Annotated[
        Path | None,
        typer.Option(
            "--add",
            help="Keep the choices in a file first: a prompt, two answers a and b, and a choice "
            "(a, b, tie); .csv, .tsv, .jsonl or .json.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", help="Who chose, where the file does not say.", show_default="file"),
    ] = None,
    show: Annotated[int, typer.Option("--list", min=0, help="Print this many of the pairs.")] = 0,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Count preference pairs: where from, on which side, length bias, contradictions."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.preference_choices import add_file
        from tutelage.workflows.data.preferences import collect

        ctx = open_context(project, out.emit)
        added = add_file(ctx, add, by=by) if add is not None else None
        found = collect(ctx)
        listed = [
            {
                "input": pair.context[-1].content,
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "source": pair.source,
                "where": pair.where,
                "split": pair.split,
                "votes": pair.votes,
            }
            for pair in found.pairs[:show]
        ]
        data: dict[str, Any] = {**found.as_dict(), "added": added}
        if show:
            data["list"] = listed
        out.result(data, lambda console: _show(console, data, listed))


def _show(console: Console, data: dict[str, Any], listed: list[dict[str, Any]]) -> None:
    from tutelage.cli.screens import indented, simple_table

    added = data["added"]
    if added:
        console.print(f"added      {added['new']:,} choices, {added['known']:,} were known")
        _show_findings(console, added["findings"])
    if data["dataset"] is None:
        console.print(
            "files      not counted: there is no dataset version yet, run `tutelage data split`",
            markup=False,
        )
    splits, judged = data["splits"], data["judged"]
    console.print(
        f"pairs      {data['pairs']:,}: {splits['train']:,} train, "
        f"{splits['validation']:,} validation"
    )
    if data["sources"]:
        console.print(indented(simple_table(("from", "pairs"), list(data["sources"].items()))))
    if judged["praised"] or judged["blamed"]:
        console.print(
            f"judged     {judged['praised']:,} praised, {judged['blamed']:,} blamed answers "
            "(train.method: kto)"
        )
    for name, text in (
        ("refused_test", "on inputs of the test split: refused"),
        ("set_aside", "set aside"),
        ("repeated", "said again"),
        ("ties", "ties, which say nothing"),
    ):
        if data[name]:
            console.print(f"{'':11}{data[name]:,} {text}")
    if data["pairs"]:
        lengths = data["lengths"]
        console.print(
            f"lengths    better {lengths['chosen_characters']:,.0f}, worse "
            f"{lengths['rejected_characters']:,.0f} characters; the better one is the longer in "
            f"{lengths['chosen_longer']:.0%} of the train pairs"
        )
    for conflict in data["conflicts"]:
        way = "the majority counts" if conflict["settled"] else "left out"
        console.print(
            f"conflict   {_short(conflict['first'])} / {_short(conflict['second'])} on "
            f"{_short(conflict['input'])}: {conflict['votes'][0]} to {conflict['votes'][1]}, {way}",
            markup=False,
        )
    _show_findings(console, data["findings"])
    for row in listed:
        console.print(
            f"{row['split']:<11}{_short(row['chosen'])} > {_short(row['rejected'])} "
            f"({row['source']}, {row['where']})",
            markup=False,
        )


def _show_findings(console: Console, findings: list[dict[str, Any]]) -> None:
    for finding in findings:
        first = finding["examples"][0]
        place = f"{first['where']}: " if first["where"] else ""
        console.print(
            f"{finding['severity']:<11}{finding['what']} ({finding['count']:,}); "
            f"{place}{first['detail']}. {finding['fix']}.",
            markup=False,
        )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…")
