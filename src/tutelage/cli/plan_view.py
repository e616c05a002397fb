"""The plan as a person reads it: the gist, then what, how and on what, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tutelage.cli.screens import duration, indented
from tutelage.workflows.training.plan_words import grouped, shown

_BAR = 40  # characters of the memory bar
_VALUE = 28  # characters of a value in a line: a longer one goes on in the next
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red", "bright_black")


def plan_view(plan: Mapping[str, Any], *, refused: bool = True) -> RenderableType:
    """Return the plan's screen; with `refused` off a refusal is left to the error that follows."""
    lines: list[RenderableType] = []
    if plan.get("headline"):
        lines.append(Text(f"{plan['headline']}.", style="bold"))
    lines += [_time(plan), Text()]
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(style="cyan", max_width=_VALUE, overflow="fold")
    table.add_column(overflow="fold")
    for title, choices in grouped(plan).items():
        table.add_row(Text(title, style="underline"), "", "")
        for choice in choices:
            table.add_row(f"  {choice['name']}", shown(choice["value"]), _why(choice))
    lines += [table, Text(), *_memory(plan.get("memory", {}))]
    lines += [Text(f"! {warning}", style="yellow") for warning in plan.get("warnings", ())]
    if refused and plan.get("refusal"):
        lines.append(Text(f"✗ {plan['refusal']}", style="bold red"))
    return indented(Group(*lines))


def _time(plan: Mapping[str, Any]) -> Text:
    line = Text(f"At most {duration(float(plan.get('seconds') or 0))}", style="cyan")
    if plan.get("cost") is not None:
        line.append(f", {plan['cost']:.2f} at your price an hour")
    line.append("; it stops sooner when the validation rows gain no more.", style="dim")
    return line


def _why(choice: Mapping[str, Any]) -> Text:
    why = Text(str(choice["reason"]))
    if choice.get("source"):
        why.append(f"  [{choice['source']}]", style="dim")
    return why


def _memory(items: Mapping[str, Any]) -> list[RenderableType]:
    """Return the total, a bar of its parts, and their names."""
    total = float(items.get("total_mb") or 0)
    if not total:
        return []
    parts = [
        (name.removesuffix("_mb").replace("_", " "), float(value))
        for name, value in items.items()
        if name != "total_mb" and value
    ]
    bar, names = Text(), Text("        ")
    for (name, value), colour in zip(parts, _COLOURS, strict=False):
        bar.append("█" * max(1, round(_BAR * value / total)), style=colour)
        names.append("■ ", style=colour)
        names.append(f"{name} {value:,.0f}  ", style="dim")
    head = Text.assemble(("memory  ", "bold"), bar, (f"  {total:,.0f} MB", "cyan"))
    return [head, names]
