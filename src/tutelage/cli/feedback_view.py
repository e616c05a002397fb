"""What a person sees of feedback: tables made from plain data. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tutelage.cli.screens import indented, simple_table

_DIRECTIONS = {1: "more is better", -1: "more is worse", 0: "neither"}


def signals(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the newest signals as a table."""
    headers = ("at (UTC)", "record", "signal", "value", "by")
    cells = [
        (_time(r["at"]), r["record"], r["signal"], _short(r["value"]), r["author"] or "–")
        for r in rows
    ]
    return simple_table(headers, cells)


def one_record(found: Mapping[str, Any]) -> RenderableType:
    """Return a record's texts, its score, and what was said of it."""
    score = "nobody told" if found["score"] is None else f"{found['score']:.2f} (0 bad, 1 good)"
    head = Text.assemble((found["record"], "bold"), f"  score: {score}")
    if found["side"]:
        head.append(f"  side: {found['side']}", "dim")
    parts: list[RenderableType] = [head]
    for message in found["messages"]:
        if message["role"] != "system":
            parts.append(indented(Text(f"{message['role']}: {message['content']}")))
    if found["response"] is not None:
        parts.append(indented(Text(f"answer: {found['response']}")))
    else:
        parts.append(indented(Text("the log has no record of that id yet", "dim")))
    if found["signals"]:
        parts.append(signals(found["signals"]))
    return Group(*parts)


def summed_up(found: Mapping[str, Any]) -> RenderableType:
    """Return the counts of signals and the scores by release."""
    span = f"{found['since']:%Y-%m-%d %H:%M} to {found['until']:%Y-%m-%d %H:%M} UTC"
    told = f"{found['scored']:,} of {found['records']:,} records have a score"
    mean = "" if found["score"] is None else f", {found['score']:.2f} on average (0 bad, 1 good)"
    parts: list[RenderableType] = [Text.assemble(("Feedback ", "bold"), (span, "dim"))]
    parts.append(Text(f"  {told}{mean}"))
    if found["signals"]:
        cells = [
            (r["signal"], f"{r['count']:,}", _number(r["score"]),
             "" if r["declared"] else "not declared: counts nothing")
            for r in found["signals"]
        ]  # fmt: skip
        parts.append(simple_table(("signal", "times", "score", ""), cells))
    if found["releases"]:
        rows = [(r["release"], f"{r['scored']:,}", _number(r["score"])) for r in found["releases"]]
        parts.append(simple_table(("release", "scored", "score"), rows))
    return Group(*parts)


def meanings(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return what each signal means."""
    cells = [
        (
            r["name"], r["kind"],
            "a change is worse" if r["name"] == "edit" else _DIRECTIONS[r["direction"]],
            f"{r['weight']:g}" if r["direction"] else "–",
            "said" if r["explicit"] else "seen", r["meaning"],
        )
        for r in rows
    ]  # fmt: skip
    return simple_table(("signal", "kind", "direction", "weight", "", "meaning"), cells)


def moved(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return how many records left training now, and which did so far."""
    count = found["moved"]
    head = f"{count:,} {'record' if count == 1 else 'records'} moved out of training now"
    if not rows:
        return Text(f"{head}; none did before")
    headers = ("at (UTC)", "record", "from", "to", "twin", "how", "alike")
    cells = [
        (_time(r["at"]), r["record"], r["from"], r["to"], r["twin"], r["how"],
         f"{r['similarity']:.0%}")
        for r in rows
    ]  # fmt: skip
    return Group(Text(head), simple_table(headers, cells))


def _time(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}…"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
