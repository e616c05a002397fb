"""The plan as a person reads it: the gist, then what, how and on what, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tutelage.cli.screens import duration, indented

_GROUPS = {
    "What is trained": (
        "method", "tune", "rank", "alpha", "target_modules", "dropout", "peft", "mixout",
        "layer_decay", "lora_plus",
    ),
    "How it learns": (
        "learning_rate", "warmup", "schedule", "weight_decay", "epochs", "batch_size",
        "prompt_loss_weight", "replay", "replay_loss", "beta", "patience", "interpolate",
        "eval_every",
    ),
}  # fmt: skip
_REST = "How it runs"
_BAR = 40  # characters of the memory bar
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red", "bright_black")


def plan_view(plan: Mapping[str, Any]) -> RenderableType:
    """Return the plan's screen."""
    lines: list[RenderableType] = []
    if plan.get("headline"):
        lines.append(Text(f"{plan['headline']}.", style="bold"))
    lines += [_time(plan), Text()]
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for title, choices in _grouped(plan).items():
        table.add_row(Text(title, style="underline"), "", "")
        for choice in choices:
            table.add_row(f"  {choice['name']}", _value(choice["value"]), _why(choice))
    lines += [table, Text(), *_memory(plan.get("memory", {}))]
    lines += [Text(f"! {warning}", style="yellow") for warning in plan.get("warnings", ())]
    if plan.get("refusal"):
        lines.append(Text(f"✗ {plan['refusal']}", style="bold red"))
    return indented(Group(*lines))


def _time(plan: Mapping[str, Any]) -> Text:
    line = Text(f"At most {duration(float(plan.get('seconds') or 0))}", style="cyan")
    if plan.get("cost") is not None:
        line.append(f", {plan['cost']:.2f} at your price an hour")
    line.append("; it stops sooner when the validation rows gain no more.", style="dim")
    return line


def _grouped(plan: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the choices under their headings, in the order of the headings."""
    by_name = {choice["name"]: choice for choice in plan.get("choices", ())}
    found = {
        title: [by_name.pop(name) for name in names if name in by_name]
        for title, names in _GROUPS.items()
    }
    found[_REST] = list(by_name.values())
    return {title: choices for title, choices in found.items() if choices}


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


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
