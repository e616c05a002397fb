"""What a person sees of releases: an import with its verdict, the checks of every hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tutelage.cli.screens import simple_table


def imported(data: Mapping[str, Any], home: Path) -> RenderableType:
    """Return what was imported, how it compares, and the next command."""
    short = data["adapter"][:12]
    head = Text(f"{short} was trained here, so nothing had to be imported")
    if "name" in data:
        head = Text(f"{data['name']} is imported as the {data['form']} {short}")
    evaluation = data["evaluation"]
    if evaluation is None:
        return Group(head, Text(f"`tutelage evaluate {short}` compares it with the baselines"))
    from tutelage.cli.finish import evaluation_view

    then = Text(f"`tutelage release create {short}` releases it")
    parts = [head, evaluation_view(evaluation, home)]
    return Group(*parts, then) if evaluation["verdict"] == "pass" else Group(*parts)


def verified(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return every release's checks, one line a part."""
    if not found:
        return Text("no releases yet")
    rows = [
        (
            one["release"],
            check["part"],
            Text("ok", style="green") if check["ok"] else Text("CHANGED", style="bold red"),
            check["why"],
        )
        for one in found
        for check in one["checks"]
    ]
    return simple_table(("release", "part", "", "why"), rows)
