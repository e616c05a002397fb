"""Draw a rollout for a person: where it stands, what the tests say and can't say, its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tutelage.cli.screens import clock, indented, simple_table

_STYLES = {"pass": "green", "fail": "red", "inconclusive": "yellow", "no_data": "dim"}


def rollout_view(data: Mapping[str, Any]) -> RenderableType:
    """Return a rollout's step, evidence and journal."""
    parts: list[RenderableType] = [Text(data["sentence"])]
    rollout = data.get("rollout")
    if not rollout:
        return Group(*parts)
    parts.append(Text(f"rollout {rollout['id']} ({rollout['strategy']})", style="dim"))
    if data.get("gateway"):
        parts.append(Text(f"here {data['gateway']}", style="yellow"))
    if rollout.get("verdict"):
        parts += _evidence(rollout)
    rows = [
        (clock(j["at"], seconds=True), j["to_state"], f"{j['weight']:g} %", j["reason"])
        for j in rollout["journal"]
    ]
    parts.append(indented(simple_table(("when (UTC)", "state", "traffic", "why"), rows)))
    hidden = rollout.get("unseen") or _told(rollout)
    if hidden:
        parts.append(Text("These requests would not have shown:", style="dim"))
        parts.append(indented(Text("\n".join(hidden), style="dim")))
    return Group(*parts)


def _told(rollout: Mapping[str, Any]) -> list[str]:
    """Return what the last step that was taken could not see, as the journal has it."""
    for move in reversed(rollout["journal"]):
        if move["evidence"].get("unseen"):
            return list(move["evidence"]["unseen"])
    return []


def _evidence(rollout: Mapping[str, Any]) -> list[RenderableType]:
    word = rollout["verdict"]
    why = "; ".join(rollout["reasons"])
    head = Text.assemble((word.replace("_", " "), _STYLES.get(word, "red")), f": {why}")
    parts: list[RenderableType] = [head]
    if rollout.get("withheld"):
        parts.append(Text(f"all traffic waits: {rollout['withheld']}", style="yellow"))
    tests = rollout["evidence"].get("tests")
    if tests:
        rows = [
            (name, t["requests"], t["observed"], f"{t['expected']:.1f}", f"{t['e']:.3g}")
            for name, t in tests.items()
        ]
        columns = ("test", "canary requests", "bad", "expected", "e")
        parts.append(indented(simple_table(columns, rows)))
    scores = rollout["evidence"].get("scores")
    if scores:
        rows = [
            (name, s["scored"], _score(s["canary"]), _score(s["baseline"]), f"{s['e']:.3g}")
            for name, s in scores.items()
        ]
        columns = ("score", "canary answers", "canary", "stable", "e")
        parts.append(indented(simple_table(columns, rows)))
    return parts


def history_view(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the rollouts there were."""
    if not rows:
        return Text("No rollout yet; `tutelage rollout start RELEASE` begins one.")
    several = len({row["deployment"] for row in rows}) > 1
    cells = [
        (
            clock(row["started_at"]),
            row["id"],
            row["strategy"],
            f"{row['deployment']}: {row['candidate']}" if several else row["candidate"],
            f"{row['state'].replace('_', ' ')}: {row['why']}" if row["why"] else row["state"],
        )
        for row in rows
    ]
    return simple_table(("started", "id", "strategy", "candidate", "how it stands"), cells)


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
