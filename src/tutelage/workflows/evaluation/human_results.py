"""How far a study is, and what it found."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.core.errors import DataError
from tutelage.evaluation.human.results import Asked, of_marks, of_votes
from tutelage.evaluation.human.votes import NOBODY
from tutelage.store.human import HumanAssignmentRow, HumanJudgementRow, HumanStudyRow
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.human_rows import (
    counting,
    criteria_of,
    find_study,
    marks_of,
    tasks_of,
    votes_of,
)

SEED = 0  # of every resampling


def status(ctx: Context) -> list[dict[str, Any]]:
    """Return every study, newest first: what it asks, and how far each rater is."""
    with ctx.store.session() as session:
        rows = session.scalars(select(HumanStudyRow).order_by(HumanStudyRow.at.desc()))
        return [_status(session, study) for study in rows]


def results(ctx: Context, study: str | None = None) -> dict[str, Any]:
    """Return what a study found so far (evaluation/human/results.py); DataError if nothing."""
    with ctx.store.session() as session:
        found = find_study(session, study)
        asked = Asked(
            tuple(found.candidates), found.sample, criteria_of(found),
            ctx.config.evaluate.confidence, SEED,
        )  # fmt: skip
        if found.kind == "rubric":
            marks = marks_of(session, found)
            empty, document = not marks, of_marks(asked, marks)
        else:
            votes = votes_of(session, found)
            empty = all(vote.rater == NOBODY for vote in votes)
            document = of_votes(asked, votes)
        if empty:
            raise DataError(
                "nobody has judged anything yet",
                where=found.id,
                fix="Give out sheets with `tutelage human export FILE.csv`, then import them",
            )
        return {
            "study": found.id,
            "evaluation": found.evaluation[:12],
            "candidates": list(found.candidates),
            "sample": dict(found.sample),
            **document,
            "comments": _comments(session, found),
        }


def _status(session: Session, study: HumanStudyRow) -> dict[str, Any]:
    counted: dict[str, Counter[str]] = {}
    for name, state, count in session.execute(
        select(HumanAssignmentRow.rater, HumanAssignmentRow.state, func.count())
        .where(HumanAssignmentRow.study == study.id)
        .group_by(HumanAssignmentRow.rater, HumanAssignmentRow.state)
    ).tuples():
        counted.setdefault(name or "", Counter())[state] = count
    times: dict[str, list[float]] = {}
    for name, seconds in session.execute(
        select(HumanJudgementRow.rater, HumanJudgementRow.seconds).where(
            HumanJudgementRow.study == study.id, HumanJudgementRow.seconds.is_not(None)
        )
    ).tuples():
        times.setdefault(name, []).append(float(seconds or 0.0))
    total = sum((Counter(own) for own in counted.values()), Counter())
    return {
        "study": study.id,
        "at": study.at.isoformat(timespec="seconds"),
        "evaluation": study.evaluation[:12],
        "kind": study.kind,
        "candidates": list(study.candidates),
        "criteria": [criterion.name for criterion in criteria_of(study)],
        "rows": study.sample["rows"],
        "overlap": study.overlap,
        "shared": study.shared,
        "judgements": total.total(),
        "done": total["done"],
        "skipped": total["skipped"],
        "left": total["open"] + total["leased"],
        "raters": [
            {
                "rater": name,
                "done": counted.get(name, Counter())["done"],
                "skipped": counted.get(name, Counter())["skipped"],
                "left": counted.get(name, Counter())["open"]
                + counted.get(name, Counter())["leased"],
                "seconds": median(times[name]) if times.get(name) else None,
            }
            for name in study.people
        ],
    }


def _comments(session: Session, study: HumanStudyRow) -> list[dict[str, Any]]:
    """Return what raters wrote, by row, newest judgements only."""
    tasks = tasks_of(session, study)
    return [
        {"item": tasks[row.task].item, "rater": row.rater, "comment": row.comment}
        for row in counting(session, tasks)
        if row.comment
    ]
