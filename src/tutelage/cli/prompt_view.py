"""What a person sees of the prompt's versions: tables, coloured differences, a test's result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tutelage.cli.screens import indented, simple_table

_STYLES = {"out": "red strike", "in": "bold green"}
_STATES = {"published": "bold green", "rejected": "red", "approved": "green", "retired": "dim"}
_OUTCOMES = {"improved": "green", "regressed": "bold red", "no_difference": "yellow"}
_KINDS = {"worse": "red", "better": "green", "other_words": "dim"}


def table(rows: Sequence[Mapping[str, Any]], told: str) -> RenderableType:
    """Return the list of versions."""
    if not rows:
        return Text("no versions yet; `tutelage prompt draft` makes one")
    cells = [
        (
            row["number"],
            row["hash"][:12],
            Text(row["state"], style=_STATES.get(row["state"], "")),
            _outcome(row["test"]),
            row["note"],
        )
        for row in rows
    ]
    shown = simple_table(("no.", "hash", "state", "test", "note"), cells)
    return Group(shown, Text(told, style="yellow")) if told else shown


def difference(pieces: Sequence[tuple[str, str]]) -> Text:
    """Return a difference with its marks, in colour where the terminal has some."""
    from tutelage.release.prompts import marked

    text = Text()
    for kind, piece in pieces:
        text.append(marked(kind, piece), style=_STYLES.get(kind, ""))
    return text


def drafted(row: Mapping[str, Any]) -> Text:
    """Return what a new draft is called and what to do next."""
    number, state = row["number"], row["state"]
    if not row["new"]:
        return Text(f"this text is version {number} already ({state})")
    return Text(f"version {number} is a draft; `tutelage prompt test {number}` tests it")


def trial(found: Mapping[str, Any]) -> Group:
    """Return a test's result: the sentence, the counts, the rows that changed."""
    parts: list[RenderableType] = [
        Text(found["sentence"], style=_OUTCOMES.get(found["outcome"], "")),
        Text(f"asked with {found['model']['name']}", style="dim"),
    ]
    counts = found["counts"]
    if found["against"]:
        said = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items())
        parts.append(Text(f"answers: {said}", style="dim"))
    cells = [
        (
            Text(row["kind"].replace("_", " "), style=_KINDS[row["kind"]]),
            _short(row["input"]),
            _short(row["before"]),
            _short(row["after"]),
            _short(row["expected"]),
        )
        for row in found["changed"]
    ]
    if cells:
        parts += [
            Text(),
            indented(simple_table(("", "input", "before", "after", "expected"), cells)),
        ]
    return Group(*parts)


def moved(row: Mapping[str, Any]) -> str:
    """Return what was published in place of what."""
    before = f" in place of version {row['before']}" if row["before"] else ""
    return f"version {row['number']} is published{before}; the next training and release use it"


def log(events: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the journal, newest first."""
    if not events:
        return Text("nothing has happened yet; `tutelage prompt draft` makes a version")
    cells = [
        (e["at"], e["number"], e["action"], e["by"], e["note"] or _said(e["evidence"]))
        for e in events
    ]
    return simple_table(("when", "no.", "what", "by", "why"), cells)


def _said(evidence: Mapping[str, Any]) -> str:
    return str(evidence.get("sentence") or "")


def _outcome(test: Mapping[str, Any] | None) -> Text:
    if not test:
        return Text("–", style="dim")
    outcome = str(test.get("outcome", ""))
    return Text(outcome.replace("_", " "), style=_OUTCOMES.get(outcome, ""))


def _short(text: object, width: int = 60) -> str:
    line = " ".join(str(text or "").split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
