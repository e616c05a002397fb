"""Answers of one person from a file of JSON lines: each is kept by itself, a bad one is named.

A line names its item by `item` (an id) or `text`, and holds `label` or `answer`, and perhaps
`flags`, `comment` and `seconds`. A line that says what the person said last is no new answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tutelage.core.errors import DataError, did_you_mean
from tutelage.core.events import Event
from tutelage.core.example import Message
from tutelage.core.lines import lines_of
from tutelage.data.annotation.items import item_id
from tutelage.store.annotations import AnnotationRow, ItemRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts import Given, submit
from tutelage.workflows.data.experts_people import require

STAGE = "label"
_KNOWN = ("item", "text", "label", "answer", "flags", "comment", "seconds", "draft")
_TEXTS = ("item", "text", "label", "answer", "comment")


def answer_lines(ctx: Context, annotator: str, path: Path) -> dict[str, Any]:
    """Keep the answers of a file; return {kept, unchanged, refused: [{line, why}]}.

    Raises DataError if the person is unknown or the file can't be read.
    """
    with ctx.store.session() as session:
        require(session, annotator)
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="Check the path")
    lines = lines_of(path.read_text(encoding="utf-8-sig", errors="replace"))
    work = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    result: dict[str, Any] = {"annotator": annotator, "kept": 0, "unchanged": 0, "refused": []}
    for place, (number, line) in enumerate(work, start=1):
        try:
            given = _given(ctx, annotator, line)
            if _said_before(ctx, given):
                result["unchanged"] += 1
            else:
                submit(ctx, given)
                result["kept"] += 1
        except DataError as problem:
            why = f"{problem.what}. {problem.fix}" if problem.fix else problem.what
            result["refused"].append({"line": number, "why": why})
        ctx.emit(Event(STAGE, "progress", "answers", done=place, total=len(work)))
    ctx.emit(Event(STAGE, "done", f"{result['kept']} answers by {annotator}"))
    return result


def _given(ctx: Context, annotator: str, line: str) -> Given:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError("not valid JSON", fix="Write one JSON object a line") from error
    if not isinstance(fields, dict):
        raise DataError("the line holds no JSON object", fix="Write {...}")
    odd = next((name for name in fields if name not in _KNOWN), None)
    if odd is not None:
        hint = did_you_mean(odd, _KNOWN)
        raise DataError(f"unknown field {odd!r}", fix=f"{hint}Known: {', '.join(_KNOWN)}")
    for name in _TEXTS:
        if fields.get(name) is not None and not isinstance(fields[name], str):
            raise DataError(f"{name!r} is not a text", fix='Write it in quotes: "..."')
    return Given(
        item=_item(ctx, fields),
        annotator=annotator,
        label=fields.get("label"),
        answer=fields.get("answer"),
        seconds=_number(fields.get("seconds")),
        comment=fields.get("comment") or "",
        flags=_flags(fields.get("flags")),
        draft=fields.get("draft") if isinstance(fields.get("draft"), int) else None,
    )


def _item(ctx: Context, fields: Mapping[str, Any]) -> str:
    if fields.get("item"):
        return str(fields["item"])
    if not fields.get("text"):
        raise DataError("the line names no item", fix="Give `item` (its id) or `text`")
    name = item_id((Message(role="user", content=str(fields["text"]).strip()),))
    with ctx.store.session() as session:
        if session.get(ItemRow, name) is None:
            raise DataError(
                f"no item asks {str(fields['text'])[:60]!r}",
                fix="`tutelage data label todo` lists the items",
            )
    return name


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError("'seconds' is not a number", fix="Write it without quotes")
    return float(value)


def _flags(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise DataError("'flags' is no list of texts", fix='Write ["unsure"]')
    return tuple(values)


def _said_before(ctx: Context, given: Given) -> bool:
    """Return whether the person's newest answer to the item is this one."""
    with ctx.store.session() as session:
        row = session.scalars(
            select(AnnotationRow)
            .where(
                AnnotationRow.item == given.item,
                AnnotationRow.annotator == given.annotator,
                AnnotationRow.undone_at.is_(None),
            )
            .order_by(AnnotationRow.number.desc())
        ).first()
    if row is None:
        return False
    same = (row.label or row.answer) == (given.label or given.answer)
    return same and tuple(row.flags) == given.flags and row.comment == given.comment.strip()
