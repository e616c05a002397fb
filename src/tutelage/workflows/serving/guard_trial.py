"""What the checks of live traffic say of a file of requests and answers. Nothing is served."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutelage.core.errors import DataError
from tutelage.core.example import Message
from tutelage.core.lines import lines_of
from tutelage.serving.guards.base import ActiveGuard
from tutelage.serving.guards.checking import Checking
from tutelage.workflows.context import Context
from tutelage.workflows.serving.guards import in_force

_REQUEST = ("request", "input", "prompt", "question", "text")
_ANSWER = ("answer", "response", "output", "completion")


@dataclass(frozen=True)
class Row:
    """One request, and its answer if the file has one. `place` is the line."""

    place: int
    messages: tuple[Message, ...]
    answer: str | None


@dataclass
class Trial:
    """What the checks said: counts by check and side, and each row that one objects to."""

    release: str | None
    guards: list[dict[str, str]]
    rows: int = 0
    blocked: int = 0
    flagged: int = 0
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    found: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        counts = [
            {"check": check, "side": side, "action": action, "rows": count}
            for (check, side, action), count in self.counts.most_common()
        ]
        return {
            "release": self.release, "guards": self.guards, "rows": self.rows,
            "blocked": self.blocked, "flagged": self.flagged, "counts": counts,
            "found": self.found,
        }  # fmt: skip


def try_file(ctx: Context, path: Path, release: str | None = None) -> Trial:
    """Return what the guards of a release say of every row of a file.

    Rows are JSON lines with `messages`, or a request and an answer under a usual name; any other
    file is read as one request a line. Raises DataError for a row that can't be read.
    """
    name, guards = in_force(ctx, release)
    found = Trial(name, [{"name": one.name, "action": one.action} for one in guards])
    for row in read_rows(path):
        found.rows += 1
        _look(found, guards, row)
    return found


def _look(found: Trial, guards: tuple[ActiveGuard, ...], row: Row) -> None:
    """Let every guard see a row and count what they say."""
    told: list[tuple[str, str]] = []
    checking = Checking(guards, row.messages, lambda name, action: told.append((name, action)))
    sides = {"request": checking.request_now()}
    counts = [(check, "request", action) for check, action in told]
    if row.answer is not None:
        told.clear()
        sides["answer"] = checking.answer_now(row.answer, "stop")
        counts += [(check, "answer", action) for check, action in told]
    found.counts.update(set(counts))
    blocked = any(why is not None for why in sides.values())
    found.blocked += blocked
    found.flagged += bool(counts) and not blocked
    for key, note in checking.notes.items():
        if not note["ok"]:
            side = "request" if key.endswith(".request") else "answer"
            guard = key.removesuffix(".request")
            own = [c for c in counts if c[1] == side and c[0].split(".")[0] == guard]
            found.found.append(
                {
                    "line": row.place,
                    "side": side,
                    "guard": guard,
                    "checks": [c[0] for c in own],
                    "blocked": any(c[2] == "block" for c in own),
                    "why": note["why"],
                }
            )


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file; blank lines are left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            "the file is not UTF-8 text", where=str(path), fix="Save it as UTF-8"
        ) from error
    lines = [(i, line) for i, line in enumerate(lines_of(text), 1) if line.strip()]
    if not lines:
        raise DataError("the file is empty", where=str(path), fix="Name a file with requests")
    as_json = path.suffix in (".jsonl", ".ndjson", ".json")
    for place, line in lines:
        if as_json:
            yield _row(place, line, f"{path}:{place}")
        else:
            yield Row(place, (Message(role="user", content=line),), None)


def _row(place: int, line: str, where: str) -> Row:
    fix = 'Give {"messages": [...]}, or {"request": "...", "answer": "..."} on every line'
    try:
        data = json.loads(line)
        if not isinstance(data, dict):
            raise DataError("this row is no JSON object", where=where, fix=fix)
        answer = _text(data, _ANSWER)
        if "messages" in data:
            turns = tuple(Message.model_validate(turn) for turn in data["messages"])
        else:
            request = _text(data, _REQUEST)
            turns = () if request is None else (Message(role="user", content=request),)
    except (ValueError, TypeError, RecursionError) as error:
        reason = "its messages are not chat turns" if isinstance(error, ValidationError) else "JSON"
        raise DataError(f"this row can't be read ({reason})", where=where, fix=fix) from error
    if answer is None and turns and turns[-1].role == "assistant":
        turns, answer = turns[:-1], turns[-1].content
    if not turns:
        raise DataError("this row has no request", where=where, fix=fix)
    return Row(place, turns, answer)


def _text(data: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((data[name] for name in names if isinstance(data.get(name), str)), None)
