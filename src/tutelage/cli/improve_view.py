"""What a person sees of the loop: a turn with its journal, the turns there were, the schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tutelage.cli.screens import clock, duration, indented, simple_table


def turn_view(data: Mapping[str, Any]) -> RenderableType:
    """Return a turn: its states with the one it is in, what it waits for, its journal."""
    parts: list[RenderableType] = [Text(str(data["sentence"]), style="bold"), _bar(data)]
    if data["waits"]:
        parts.append(Text(f"waits for: {data['waits']}", style="yellow"))
    if data["problem"]:
        parts.append(Text(str(data["problem"]), style="red"))
    parts += [Text(""), indented(_journal(data["journal"]))]
    return Group(*parts)


def _bar(data: Mapping[str, Any]) -> Text:
    text = Text()
    states = list(data["states"])
    here = states.index(data["state"]) if data["state"] in states else len(states)
    for place, name in enumerate(states):
        style = "green" if place < here else "bold cyan" if place == here else "dim"
        text.append(f"{' > ' if place else ''}", style="dim").append(name, style=style)
    if data["state"] not in states:
        text.append(" > ", style="dim").append(str(data["state"]), style="bold")
    return text


def _journal(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    return simple_table(
        ("when", "state", "took", "what and why"),
        [
            (
                clock(row["at"]),
                row["from_state"] or "begins",
                duration(row["seconds"]) if row["seconds"] >= 1 else "",
                row["reason"] + (f" ({row['author']})" if row["author"] else ""),
            )
            for row in rows
        ],
    )


def history_view(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the turns there were."""
    if not rows:
        return Text("no turn of the loop yet; `tutelage improve` begins one")
    return simple_table(
        ("turn", "began", "state", "why", "last"),
        [
            (row["turn"], clock(row["started_at"]), row["state"], row["why"],
             row["ended"])
            for row in rows
        ],
    )  # fmt: skip


def schedule_view(data: Mapping[str, Any]) -> RenderableType:
    """Return what starts a turn and what stands now."""
    settings = data["settings"]
    names = ("every", "cron", "on_drift", "on_labels", "quiet", "budget")
    lines: list[RenderableType] = [Text(("due: " if data["act"] else "") + str(data["reason"]))]
    lines.append(
        indented(simple_table(("setting", "is"), [(name, settings[name]) for name in names]))
    )
    if data["begun"]:
        lines.append(Text("turns that it began"))
        lines.append(
            indented(
                simple_table(
                    ("when", "turn", "why"),
                    [(clock(r["at"]), r["turn"] or "", r["reason"])
                     for r in data["begun"]],
                )
            )
        )  # fmt: skip
    return Group(*lines)
