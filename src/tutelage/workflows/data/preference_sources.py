"""Where preferences come from: files with pairs, experts' corrections, comparisons, production.

Everything there is is gathered, each with the side its input has so far, or none. What may be
trained on is decided in preferences.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select

from tutelage.core.example import SPLITS, Example, Message, SplitName
from tutelage.data.annotation.items import item_id
from tutelage.data.annotation.votes import Voted, decide
from tutelage.data.findings import Finding
from tutelage.data.preferences import REJECTED, Judged, Pair, same
from tutelage.data.readers.turns import Unusable, said
from tutelage.data.version import DROPPED, DatasetVersion
from tutelage.feedback.signals import newest
from tutelage.store.annotations import DraftRow
from tutelage.store.preferences import ComparisonRow
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.check import clean_step
from tutelage.workflows.data.experts_items import without_prompt
from tutelage.workflows.data.experts_review import load_votes
from tutelage.workflows.data.privacy import redacted_rows

_TWIN = "D4-E01"  # rows left out because input and answer were there: the worse one may differ


@dataclass
class Gathered:
    """Everything found: pairs, judged answers, and rows whose two answers don't belong together.

    `ties` counts comparisons in which neither answer was better.
    """

    pairs: list[Pair] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    ties: int = 0


def gather(ctx: Context, version: DatasetVersion | None) -> Gathered:
    """Return the preferences of the project, file by file and table by table."""
    found = Gathered()
    if version is not None:
        for row, split in _rows(version):
            _add_row(ctx, row, split, found)
    found.pairs += expert_edits(ctx)
    _add_production(ctx, found)
    _add_comparisons(ctx, found)
    return _without_identifiers(ctx, found)


def _without_identifiers(ctx: Context, found: Gathered) -> Gathered:
    """Replace identifiers where data.privacy.mode asks for it; rows of files were seen to."""
    if ctx.config.data.privacy.mode != "redact":
        return found
    loose = [pair for pair in found.pairs if pair.source != "file"]
    rows = [_row(pair.context, pair.chosen, pair.group) for pair in loose]
    rows += [_row(pair.context, pair.rejected, pair.group) for pair in loose]
    rows += [_row(one.context, one.answer, one.group) for one in found.judged]
    hidden = redacted_rows(ctx, rows)
    count = len(loose)
    found.pairs = [pair for pair in found.pairs if pair.source == "file"] + [
        replace(
            pair,
            context=hidden[index].context,
            chosen=hidden[index].answer or "",
            rejected=hidden[count + index].answer or "",
        )
        for index, pair in enumerate(loose)
    ]
    found.judged = [
        replace(one, context=row.context, answer=row.answer or "")
        for one, row in zip(found.judged, hidden[2 * count :], strict=True)
    ]
    return found


def _row(context: tuple[Message, ...], answer: str, group: str | None) -> Example:
    return Example(messages=(*context, Message(role="assistant", content=answer)), group=group)


def _rows(version: DatasetVersion) -> Iterator[tuple[Example, SplitName | None]]:
    """Yield the version's rows with a worse answer, and their twins that were left out."""
    for split in SPLITS:
        for row in version.rows(split):
            if REJECTED in row.meta:
                yield row, split
    with (version.directory / DROPPED).open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry.get("finding") == _TWIN and REJECTED in entry["row"].get("meta", {}):
                yield Example.model_validate(entry["row"]), None


def _add_row(ctx: Context, row: Example, split: SplitName | None, found: Gathered) -> None:
    place = row.origin.source
    try:
        *before, last = said(row.meta[REJECTED], "assistant")
    except Unusable as problem:
        found.findings.append(Finding("D8-P04", problem.detail, place, row.id))
        return
    if last.role != "assistant" or (before and not _same_turns(before, row.context)):
        detail = "the worse answer does not follow the turns of the better one"
        found.findings.append(Finding("D8-P04", detail, place, row.id))
        return
    found.pairs.append(
        Pair(
            row.context, row.answer or "", written(ctx, row.context, last.content), "file", place,
            row.origin.author, row.label, row.group, split,
        )
    )  # fmt: skip


def _same_turns(turns: list[Message], context: tuple[Message, ...]) -> bool:
    spoken = [turn for turn in context if turn.role != "system"]
    return item_id(turns) in (item_id(context), item_id(spoken))


def written(ctx: Context, context: tuple[Message, ...], text: str) -> str:
    """Return an answer as curation would write it: tidied, a bare label in the project's form."""
    output = ctx.config.output.format()
    if text.strip() in output.labels:
        return output.render(text.strip())
    row = Example(messages=(*context, Message(role="assistant", content=text)))
    return clean_step(ctx).clean(row)[0].answer or ""


def expert_edits(ctx: Context) -> list[Pair]:
    """Return each answer that experts settled on over the draft it began as, where they differ."""
    with ctx.store.session() as session:
        drafts: dict[int | None, DraftRow] = {
            row.id: row for row in session.scalars(select(DraftRow))
        }
    if not drafts:
        return []
    return [pair for one in load_votes(ctx) for pair in _edits_of(ctx, one, drafts)]


def _edits_of(ctx: Context, one: Voted, drafts: dict[int | None, DraftRow]) -> Iterator[Pair]:
    decision = decide(one)
    if decision is None:
        return
    output, context = ctx.config.output.format(), one.item.example.context
    chosen = decision.answer if decision.answer is not None else output.render(decision.label or "")
    for number in dict.fromkeys(vote.draft for vote in one.answers if vote.draft in drafts):
        draft = drafts[number]
        worse = output.render(draft.label) if draft.label is not None else draft.text
        if same(worse) != same(chosen):
            yield Pair(
                context, chosen, written(ctx, context, worse), "expert edit",
                f"item {one.item.id}", ", ".join(decision.by), decision.label,
                one.item.example.group, one.item.split,
            )  # fmt: skip


def _add_production(ctx: Context, found: Gathered) -> None:
    """Add corrected answers over those that were given, and answers with a thumb up or down."""
    kinds = ("edit", "rating")
    with ctx.store.session() as session:
        signals = newest(list(session.scalars(select(SignalRow).where(SignalRow.kind.in_(kinds)))))
        named = select(SignalRow.record).where(SignalRow.kind.in_(kinds))
        records = list(
            session.scalars(
                select(RecordRow)
                .where(RecordRow.id.in_(named), RecordRow.status == 200)
                .order_by(RecordRow.at, RecordRow.id)
            )
        )
    for record in records:
        edit = signals.get((record.id, "edit"))
        rating = signals.get((record.id, "rating"))
        if edit is not None and same(str(edit.value["value"])) != same(record.response):
            found.pairs += _as_pair(ctx, record, edit)
        elif rating is not None and rating.value["value"] != 0.5:
            found.judged += _as_judged(ctx, record, rating)


def _as_pair(ctx: Context, record: RecordRow, edit: SignalRow) -> list[Pair]:
    answer = str(edit.value["value"])
    rows = _tidied(ctx, record, [answer, record.response])
    if rows is None:
        return []
    better, worse = rows
    label = ctx.config.output.format().parse(answer).label if _closed(ctx) else None
    side: SplitName = record.split  # type: ignore[assignment]
    return [
        Pair(
            better.context, better.answer or "", worse.answer or "", "production edit", record.id,
            edit.author, label, record.group_key, side,
        )
    ]  # fmt: skip


def _as_judged(ctx: Context, record: RecordRow, rating: SignalRow) -> list[Judged]:
    rows = _tidied(ctx, record, [record.response])
    if rows is None or not record.response.strip():
        return []
    (row,) = rows
    label = ctx.config.output.format().parse(record.response).label if _closed(ctx) else None
    side: SplitName = record.split  # type: ignore[assignment]
    return [
        Judged(
            row.context, row.answer or "", rating.value["value"] > 0.5, record.id, rating.author,
            label, record.group_key, side,
        )
    ]  # fmt: skip


def _tidied(ctx: Context, record: RecordRow, answers: list[str]) -> list[Example] | None:
    """Return the request with each answer, tidied; None without text."""
    turns = tuple(
        Message(role=turn["role"], content=turn["content"])
        for turn in record.messages
        if isinstance(turn, dict) and isinstance(turn.get("content"), str)
    )
    if not any(turn.role == "user" for turn in turns):
        return None
    turns = without_prompt(turns, ctx.config.prompt)
    rows = [
        Example(messages=(*turns, Message(role="assistant", content=answer))) for answer in answers
    ]
    tidy = clean_step(ctx)
    return [tidy.clean(row)[0] for row in rows]


def _closed(ctx: Context) -> bool:
    return bool(ctx.config.output.field or ctx.config.output.labels)


def _add_comparisons(ctx: Context, found: Gathered) -> None:
    """Add each person's newest choice between two answers."""
    output = ctx.config.output.format()
    for row in comparisons(ctx):
        if row.choice == "tie":
            found.ties += 1
            continue
        context = Example.model_validate(row.example).context
        texts = (row.first, row.second) if row.choice == "first" else (row.second, row.first)
        better, worse = (written(ctx, context, text) for text in texts)
        side: Any = row.split
        found.pairs.append(
            Pair(
                context, better, worse, "comparison", row.source or f"comparison {row.number}",
                row.author, output.parse(better).label if _closed(ctx) else None,
                row.example.get("group"), side,
            )
        )  # fmt: skip


def comparisons(ctx: Context) -> list[ComparisonRow]:
    """Return the choices that count, oldest first: the newest of each person on each two."""
    with ctx.store.session() as session:
        rows = session.scalars(select(ComparisonRow).order_by(ComparisonRow.number))
        counting = {(row.pair, row.author): row for row in rows}
    return sorted(counting.values(), key=lambda row: row.number)
