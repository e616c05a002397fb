"""The last screens: the verdict, where the time went, how the loop stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tutelage.cli.screens import duration, indented, time_table, verdict_panel, verdict_text

_BAR = 30


def _scores(primary: Mapping[str, Any]) -> Table:
    """Return the three candidates' scores with a bar each."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    names = {"base": "base model, zero-shot", "few_shot": "base model, few-shot", "tuned": "tuned"}
    for key, name in names.items():
        value = primary.get(key)
        if value is None:
            continue
        style = "green" if key == "tuned" else "bright_black"
        bar = Text("█" * round(_BAR * value), style=style)
        bar.append("░" * (_BAR - round(_BAR * value)), style="bright_black")
        table.add_row(name, f"{value:.1%}", bar)
    return table


def _difference(primary: Mapping[str, Any]) -> str:
    low, high = primary["difference_low"] * 100, primary["difference_high"] * 100
    metric = primary["metric"]
    return f"{metric}: the tuned model gains {low:+.0f} to {high:+.0f} points (95 % interval)"


def evaluation_view(data: Mapping[str, Any], home: Path) -> RenderableType:
    """Return the scores, the criteria and the verdict."""
    lines = [criterion["sentence"] for criterion in data.get("criteria", ())]
    return Group(
        indented(_scores(data["primary"])),
        verdict_panel("verdict", lines, data["verdict"]),
        Text(f"report  {home / data['report']}", style="dim"),
    )


def run_view(data: Mapping[str, Any], home: Path) -> RenderableType:
    """Return the end of `tutelage run`."""
    lines = [_difference(data["primary"])]
    lines.append(f"release {data['release']}" if data["release"] else "no release was made")
    return Group(
        Text(),
        indented(_scores(data["primary"])),
        verdict_panel("verdict", lines, data["verdict"]),
        Text(f"report  {home / data['report']}", style="dim"),
    )


def quickstart_view(data: Mapping[str, Any], directory: Path) -> RenderableType:
    """Return the demo's last screen."""
    body: list[RenderableType] = [
        Text.assemble(verdict_text(data["verdict"]), "  ", _difference(data["primary"])),
        Text(),
        _scores(data["primary"]),
        Text(),
    ]
    if data["rollout"]:
        body.append(Text.assemble(("serving   ", "dim"), data["rollout"]["sentence"]))
    if data["learned"]:
        learned = data["learned"]
        body.append(
            Text.assemble(
                ("learning  ", "dim"),
                f"{learned['feedback']} answers looked at, {learned['edits']} corrected",
            )
        )
    body.append(Text.assemble(("report    ", "dim"), str(directory / ".tutelage" / data["report"])))
    seconds = sum(data["seconds"].values())
    where = Group(
        Text.assemble(
            ("where the time went  ", "bold"),
            (f"{duration(seconds)}, at most {data['peak_memory_mb']:,} MB of memory", "dim"),
        ),
        indented(time_table(data["seconds"])),
    )
    here = str(directory)
    then = Text.assemble(
        ("what now   ", "bold"),
        (f"tutelage up --project {here}", "cyan"), "       serve it again\n           ",
        (f"tutelage status --project {here}", "cyan"), "   where the loop stands\n           ",
        ("tutelage init DIR --data your.csv", "cyan"), "   your own rows",
    )  # fmt: skip
    panel = Panel(
        Group(*body),
        title="[bold]The loop, closed once[/]",
        title_align="left",
        border_style="cyan",
    )
    return Group(Text(), panel, Text(), where, Text(), then)


def status_view(data: Mapping[str, Any]) -> RenderableType:
    """Return where the loop stands."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for name, stage in data["stages"].items():
        if stage is None:
            table.add_row(Text("○", style="dim"), name, Text("not yet", style="dim"))
        else:
            table.add_row(Text("●", style="green"), name, stage["summary"])
    learning = data["learning"]
    table.add_row(Text("●", style="cyan"), "serve", data["serving"]["sentence"])
    table.add_row(Text("●", style="cyan"), "learn", learning["sentence"])
    return Group(Text(data["project"], style="bold"), indented(table), Text(data["next"]))


def rollout_view(data: Mapping[str, Any]) -> RenderableType:
    """Return a rollout's step, evidence and journal."""
    from tutelage.cli.screens import simple_table

    parts: list[RenderableType] = [Text(data["sentence"])]
    rollout = data.get("rollout")
    if rollout:
        rows = [
            (j["at"], j["to_state"], f"{j['weight']:g} %", j["reason"]) for j in rollout["journal"]
        ]
        parts.append(indented(simple_table(("when", "state", "traffic", "why"), rows)))
    return Group(*parts)
