"""Mark words of an item as an identifier: they are replaced wherever the item says them.

With data.privacy.mode redact the project's pseudonym stands for them, else the word for the kind,
such as [NAME]. A row of the dataset gets repairs, which the next curation applies. The user's own
files and the log of requests stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core.errors import DataError, did_you_mean
from tutelage.data.privacy.kinds import KINDS, Span
from tutelage.data.privacy.vault import Form
from tutelage.data.repairs import Action, Repair
from tutelage.store.annotations import DraftRow, ItemRow
from tutelage.store.kept import KeptTextRow
from tutelage.workflows.context import Context
from tutelage.workflows.data import repairs as kept_repairs
from tutelage.workflows.data.experts_people import require
from tutelage.workflows.data.experts_rows import find_item
from tutelage.workflows.data.experts_typed import keys_of
from tutelage.workflows.data.privacy import detector, opened

_LONGEST = 400  # characters of one identifier


@dataclass(frozen=True)
class Redacted:
    """What was replaced in an item, and what it said before: for `restore_item`, never stored."""

    item: str
    kind: str
    token: str
    times: int
    batch: str | None  # of the repairs, if it is a row of the dataset
    before: dict[str, Any]
    drafts: dict[int, tuple[str, str | None]]


def kind_of(ctx: Context, text: str) -> str:
    """Return what kind of identifier a marked text looks like; a name if nothing tells."""
    found = detector(ctx)(text, frozenset(KINDS), None)
    whole = [span for span in found if span.end - span.start >= len(text.strip()) // 2]
    return max(whole, key=lambda span: span.confidence).kind if whole else "name"


def redact_item(ctx: Context, annotator: str, item: str, text: str, kind: str) -> Redacted:
    """Replace a text in an item's turns, answer and drafts; return how often, and what was there.

    Raises DataError if the item does not say the text, or the kind is none.
    """
    wanted = text.strip()
    _check(wanted, kind)
    token = _token(ctx, wanted, kind)

    def hide(said: str) -> str:
        return _found(wanted).sub(lambda _: token, said)

    with ctx.store.begin() as session:
        name = require(session, annotator).name
        row = find_item(session, item)
        before = {"example": row.example, "answer": row.answer}
        drafts = {one.id: (one.text, one.label) for one in _drafts(session, row.id)}
        times = _replace(session, row, _found(wanted), token)
        if not times:
            raise DataError(
                "the item does not say what was marked",
                where=row.id,
                fix="Mark words of the item itself",
            )
        repairs = _repairs(row, before, f"{KINDS[kind].title} marked by a person", name)
    batch = kept_repairs.record(ctx, repairs) if repairs else None
    return Redacted(row.id, kind, token, times, batch, before, drafts)


def restore_item(ctx: Context, redacted: Redacted) -> None:
    """Put back what a marking replaced, and take its repairs back."""
    with ctx.store.begin() as session:
        row = find_item(session, redacted.item)
        row.example, row.answer = redacted.before["example"], redacted.before["answer"]
        for number, (text, label) in redacted.drafts.items():
            draft = session.get(DraftRow, number)
            if draft is not None:
                draft.text, draft.label = text, label
    if redacted.batch is not None:
        kept_repairs.undo(ctx, redacted.batch)


def _check(wanted: str, kind: str) -> None:
    if not wanted or len(wanted) > _LONGEST:
        raise DataError(
            "nothing is marked" if not wanted else "more is marked than one identifier",
            fix=f"Mark the words to hide, up to {_LONGEST} characters",
        )
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS)
        raise DataError(
            f"{kind!r} is no kind of identifier", fix=f"{hint}Known: {', '.join(KINDS)}"
        )


def _token(ctx: Context, wanted: str, kind: str) -> str:
    if ctx.config.data.privacy.mode != "redact":
        return f"[{KINDS[kind].tag}]"
    span = Span(0, len(wanted), kind, 1.0, "a person marked it")
    with opened(ctx, keep=True) as pseudonyms:
        return pseudonyms.token(span, Form(wanted))


def _found(wanted: str) -> re.Pattern[str]:
    """Return what finds a text as a whole: `Ann` is not part of `Annual`."""
    start = r"(?<!\w)" if wanted[:1].isalnum() else ""
    end = r"(?!\w)" if wanted[-1:].isalnum() else ""
    parts = r"\s+".join(re.escape(word) for word in wanted.split())
    return re.compile(f"{start}{parts}{end}")


def _replace(session: Session, row: ItemRow, find: re.Pattern[str], token: str) -> int:
    """Change the item, its drafts and what people are typing about it; return how often."""
    count = 0

    def hide(said: str) -> str:
        nonlocal count
        changed, times = find.subn(lambda _: token, said)
        count += times
        return changed

    turns = [{**turn, "content": hide(turn["content"])} for turn in row.example["messages"]]
    row.example = {**row.example, "messages": turns}
    row.answer = hide(row.answer) if row.answer else row.answer
    for draft in _drafts(session, row.id):
        draft.text = hide(draft.text)
    for kept in session.scalars(select(KeptTextRow).where(KeptTextRow.item.in_(keys_of(row.id)))):
        kept.text = hide(kept.text)
    return count


def _drafts(session: Session, item: str) -> list[DraftRow]:
    return list(session.scalars(select(DraftRow).where(DraftRow.item == item)))


def _repairs(row: ItemRow, before: dict[str, Any], why: str, author: str) -> list[Repair]:
    """Return the repairs of the item's row; only its last question and its answer can have one."""
    if row.example_id is None:
        return []
    pairs = zip(row.example["messages"], before["example"]["messages"], strict=True)
    asked = [new["content"] for new, old in pairs if new != old and new["role"] == "user"]
    changes: list[tuple[Action, str]] = [("input", asked[-1])] if asked else []
    if row.answer and row.answer != before["answer"]:
        changes.append(("answer", row.answer))
    return [Repair(row.example_id, action, value, why, author) for action, value in changes]
