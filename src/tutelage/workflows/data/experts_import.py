"""Bring answers that were given in Label Studio or Argilla into the store, once.

Importing a file again adds only what is new in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.data.annotation.imported import Answer, Labelled, Proposal, Wanted, read_export
from tutelage.data.findings import summarise
from tutelage.store.annotations import (
    AdjudicationRow,
    AnnotationRow,
    AnnotatorRow,
    DraftRow,
)
from tutelage.workflows.context import Context
from tutelage.workflows.data.check import columns_of
from tutelage.workflows.data.experts_people import known_name
from tutelage.workflows.data.experts_rows import keep_items, known_rows


def import_answers(
    ctx: Context,
    path: Path,
    *,
    question: str | None = None,
    text: str | None = None,
    people: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Import an export; return {tool, why, question, items, answers, drafts, people, findings, …}.

    `question` names the one to take, `text` the field with the input, `people` maps the tool's
    ids to names. Everything is written in one transaction. Raises DataError, with nothing
    written, if the file is no export or the question can't be told.
    """
    wanted = Wanted(
        columns=columns_of(ctx),
        output=ctx.config.output.format(),
        task=ctx.config.task,
        question=question,
        text=text,
        people=dict(people or {}),
    )
    found = read_export(path, wanted)
    known = known_rows(ctx, [one.item for one in found.tasks])
    tasks = [replace(one, item=item) for one, item in zip(found.tasks, known, strict=True)]
    counts: Counter[str] = Counter()
    source = f"{found.tool}:{path.name}"[:64]
    with ctx.store.begin() as session:
        new_items = keep_items(session, known)
        names = _keep_people(session, tasks)
        for one in tasks:
            _keep_drafts(session, one, found.tool, counts)
            for answer in one.answers:
                _keep_answer(session, one, answer, source, counts)
    return {
        "tool": found.tool,
        "why": found.why,
        "question": found.question,
        "items": len(found.tasks),
        "new_items": new_items,
        "in_dataset": sum(item.example_id is not None for item in known),
        "answers": counts["answers"],
        "skipped": counts["skipped"],
        "known": counts["known"],
        "drafts": counts["drafts"],
        "final": counts["final"],
        "people": names,
        "findings": summarise(found.findings),
    }


def _keep_people(session: Session, tasks: list[Labelled]) -> list[str]:
    names = sorted({_name(answer) for one in tasks for answer in one.answers})
    for name in names:
        if session.get(AnnotatorRow, name) is None:
            session.add(AnnotatorRow(name=name))
    session.flush()
    return names


def _name(answer: Answer) -> str:
    return known_name(answer.annotator.replace(",", " ")[:80])


def _keep_drafts(session: Session, one: Labelled, tool: str, counts: Counter[str]) -> None:
    for draft in one.drafts:
        counts["drafts"] += _keep_draft(session, one.item.id, draft, tool)


def _keep_draft(session: Session, item: str, draft: Proposal, tool: str) -> bool:
    model = draft.model[:160]
    same = select(DraftRow.id).where(
        DraftRow.item == item, DraftRow.model == model, DraftRow.prompt == tool
    )
    if session.scalars(same).first() is not None:
        return False
    session.add(DraftRow(item=item, text=draft.text, label=draft.label, model=model, prompt=tool))
    session.flush()
    return True


def _keep_answer(
    session: Session, one: Labelled, answer: Answer, source: str, counts: Counter[str]
) -> None:
    same = select(AnnotationRow.number).where(AnnotationRow.key == answer.key)
    if session.scalars(same).first() is not None:
        counts["known"] += 1
        return
    name = _name(answer)
    newest = session.scalars(
        select(AnnotationRow.number)
        .where(AnnotationRow.item == one.item.id, AnnotationRow.annotator == name)
        .order_by(AnnotationRow.number.desc())
    ).first()
    session.add(
        AnnotationRow(
            item=one.item.id,
            annotator=name,
            label=answer.label,
            answer=answer.answer,
            flags=["skip"] if answer.skipped else [],
            comment=answer.comment,
            seconds=answer.seconds,
            supersedes=newest,
            source=source,
            extra=answer.extra,
            key=answer.key,
        )
    )
    session.flush()
    counts["skipped" if answer.skipped else "answers"] += 1
    if answer.final and not answer.skipped:
        session.add(
            AdjudicationRow(
                item=one.item.id,
                label=answer.label,
                answer=answer.answer,
                author=name,
                why=f"marked as the truth in {source}",
            )
        )
        counts["final"] += 1
