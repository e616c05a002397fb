"""What a person sees of events and alerts: tables and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tutelage.cli.screens import simple_table

_LEVELS = {"error": "bold red", "warning": "yellow", "info": "dim"}
_STATES = {"firing": "bold red", "resolved": "green", "sent": "green", "failed": "red"}

Rows = Sequence[Mapping[str, Any]]


def event_line(row: Mapping[str, Any]) -> Text:
    """Return one event as one line."""
    return Text.assemble(
        (_clock(row["at"]), "dim"),
        "  ",
        (f"{row['level']:<8}", _LEVELS[row["level"]]),
        f"{row['kind']:<20} ",
        row["message"],
    )


def events(rows: Rows, *, picked: bool) -> RenderableType:
    """Return the events, oldest first; `picked` ones were asked for by kind, time or place."""
    if not rows:
        return Text("no such event has happened" if picked else "nothing has happened yet")
    return Text("\n").join(event_line(row) for row in rows)


def alerts(data: Mapping[str, Any]) -> RenderableType:
    """Return the alerts and the silences."""
    parts: list[RenderableType] = []
    if data["alerts"]:
        cells = [
            (
                Text(row["state"], style=_STATES[row["state"]]),
                row["alert"],
                Text(row["level"], style=_LEVELS[row["level"]]),
                row["message"],
                _clock(row["since"]),
                row["count"],
            )
            for row in data["alerts"]
        ]
        heads = ("state", "rule", "level", "what", "since", "seen")
        parts.append(simple_table(heads, cells))
    else:
        parts.append(Text("nothing fires", style="green"))
    for row in data["silences"]:
        where = f" of {row['deployment']}" if row["deployment"] else ""
        why = f" ({row['reason']})" if row["reason"] else ""
        parts.append(Text(f"{row['rule']}{where} is silent until {_clock(row['until'])}{why}"))
    if not data["webhooks"]:
        parts.append(Text("no webhook is told: alerts.webhooks is empty", style="dim"))
    return Group(*parts)


def rules(rows: Rows) -> RenderableType:
    """Return the rules in force."""
    cells = [
        (row["name"], Text(row["level"], style=_LEVELS[row["level"]]), row["when"], row["source"])
        for row in rows
    ]
    return simple_table(("rule", "level", "when", "from"), cells)


def measures(rows: Rows) -> RenderableType:
    """Return what rules may compare."""
    cells = [(row["name"], row["kind"], ", ".join(row["labels"]), row["says"]) for row in rows]
    return simple_table(("name", "kind", "labels", "says"), cells)


def notices(rows: Rows) -> RenderableType:
    """Return the notices, newest first."""
    if not rows:
        return Text("no webhook was told anything yet")
    cells = [
        (
            _clock(row["created_at"]),
            row["webhook"],
            f"{row['alert']} {row['status']}",
            Text(row["state"], style=_STATES.get(row["state"], "yellow")),
            row["attempts"],
            row["error"] or "",
        )
        for row in rows
    ]
    return simple_table(("made", "webhook", "what", "state", "tries", "error"), cells)


def tests(rows: Rows) -> RenderableType:
    """Return how test notices went."""
    return Text("\n").join(
        Text.assemble(("✓ ", "green"), f"{row['webhook']} took it")
        if row["delivered"]
        else Text.assemble(("✗ ", "red"), f"{row['webhook']}: {row['error']}")
        for row in rows
    )


def _clock(at: str) -> str:
    """Return a moment in this machine's time."""
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
