"""Blind studies as a page shows them: what can be compared, how far each is, and the verdict.

Nothing tells who is ahead while anybody still has something to judge: a look at the standing
would colour the judgements that are to come. `tutelage human results` prints it at any time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.core.errors import Conflict
from tutelage.store.artifacts import ArtifactRow
from tutelage.store.human import HumanAssignmentRow, HumanStudyRow, HumanTaskRow
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.human_results import results
from tutelage.workflows.evaluation.human_rows import counting, criteria_of, find_study

_WORDS = {"first": 0, "second": 1}


@dataclass(frozen=True)
class Standing:
    """How far a study is, and what of it is left for one person. It says nothing of who leads.

    `of` tells rows drawn of rows in the evaluation; `people` maps each rater to (judged, left).
    """

    study: str
    at: Any
    kind: str
    candidates: tuple[str, ...]
    criteria: tuple[str, ...]
    rows: int
    of: int
    overlap: int
    shared: bool
    judged: int
    left: int
    people: Mapping[str, tuple[int, int]]
    mine: tuple[int, int] | None  # judged, left; None if the person is no rater

    @property
    def finished(self) -> bool:
        """Whether everything that was asked is judged or skipped."""
        return self.left == 0


@dataclass(frozen=True)
class Comparable:
    """An evaluation whose answers can be judged."""

    name: str  # start of its hash
    at: Any
    rows: int
    candidates: tuple[str, ...]


def standings(ctx: Context, person: str, *, start: int = 0, count: int = 20) -> list[Standing]:
    """Return studies, newest first, as one person sees them."""
    with ctx.store.session() as session:
        rows = session.scalars(
            select(HumanStudyRow)
            .order_by(HumanStudyRow.at.desc(), HumanStudyRow.id)
            .offset(start)
            .limit(count)
        )
        return [_standing(session, row, person) for row in rows]


def study_count(ctx: Context) -> int:
    """Return how many studies there are."""
    with ctx.store.session() as session:
        return int(session.scalar(select(func.count()).select_from(HumanStudyRow)) or 0)


def standing(ctx: Context, study: str, person: str) -> Standing:
    """Return one study as a person sees it; DataError if there is none."""
    with ctx.store.session() as session:
        return _standing(session, find_study(session, study), person)


def reveal(ctx: Context, study: str) -> dict[str, Any]:
    """Return what a study found; Conflict while anything is left to judge."""
    with ctx.store.session() as session:
        found = find_study(session, study)
        left = _standing(session, found, "").left
    if left:
        rest = "1 judgement is" if left == 1 else f"{left:,} judgements are"
        raise Conflict(
            f"{rest} still to come, and nobody sees who leads until then",
            where=found.id,
            fix="Judge or skip what is left; `tutelage human results` prints the standing",
        )
    return results(ctx, found.id)


def judged_pairs(
    ctx: Context, study: str, *, start: int = 0, count: int = 10
) -> tuple[int, list[dict[str, Any]]]:
    """Return how many pairs were judged, and some of them with who wrote what and who chose what.

    Conflict while anything is left to judge.
    """
    with ctx.store.session() as session:
        found = find_study(session, study)
        left = _standing(session, found, "").left
        if left:
            raise Conflict("the study is not finished", where=found.id, fix="Judge what is left")
        asked = HumanTaskRow.study == found.id, HumanTaskRow.asked.is_(True)
        total = session.scalar(select(func.count()).select_from(HumanTaskRow).where(*asked))
        query = select(HumanTaskRow).where(*asked).order_by(HumanTaskRow.id)
        tasks = list(session.scalars(query.offset(start).limit(count)))
        said: dict[int, list[dict[str, Any]]] = {}
        for row in counting(session, [task.id for task in tasks]):
            task = next(one for one in tasks if one.id == row.task)
            said.setdefault(row.task, []).append(
                {
                    "rater": row.rater,
                    "chose": _chosen(task, row.choice),
                    "levels": dict(row.levels),
                    "comment": row.comment,
                }
            )
    rows = [
        {
            "messages": list(task.messages),
            "first": task.first,
            "second": task.second,
            "first_text": task.first_text,
            "second_text": task.second_text,
            "said": said.get(task.id, []),
        }
        for task in tasks
    ]
    return int(total or 0), rows


def comparable(ctx: Context, count: int = 20) -> list[Comparable]:
    """Return the newest evaluations with the candidates that answered, those on disk alone."""
    with ctx.store.session() as session:
        rows = list(
            session.scalars(
                select(ArtifactRow)
                .where(ArtifactRow.kind == "evaluation")
                .order_by(ArtifactRow.created_at.desc())
                .limit(count)
            )
        )
    found = []
    for row in rows:
        names, items = _answered(ctx, row)
        if names:
            found.append(Comparable(row.hash[:12], row.created_at, items, names))
    return found


def _answered(ctx: Context, row: ArtifactRow) -> tuple[tuple[str, ...], int]:
    """Return who answered in an evaluation, in the order they stand in it, and how many rows."""
    path = ctx.workspace.home / row.path / "rows.jsonl"
    names: dict[str, None] = {}
    items: set[str] = set()
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                names[str(entry["candidate"])] = None
                items.add(str(entry["item"]))
    return tuple(names), len(items)


def _chosen(task: HumanTaskRow, choice: str | None) -> str | None:
    """Return the name of the candidate that was chosen, "tie", or None for marks."""
    if choice is None or choice == "tie":
        return choice
    return (task.first, task.second or "")[_WORDS[choice]]


def _standing(session: Session, study: HumanStudyRow, person: str) -> Standing:
    counted: dict[str, Counter[str]] = {str(name): Counter() for name in study.people}
    free = 0
    for name, state, count in session.execute(
        select(HumanAssignmentRow.rater, HumanAssignmentRow.state, func.count())
        .where(HumanAssignmentRow.study == study.id)
        .group_by(HumanAssignmentRow.rater, HumanAssignmentRow.state)
    ).tuples():
        if name is None:
            free += int(count)
        else:
            counted.setdefault(name, Counter())[state] += int(count)
    people = {name: (_done(own), _left(own)) for name, own in counted.items()}
    own = people.get(person)
    if own is not None and study.shared:
        own = (own[0], own[1] + _free_for(session, study.id, person))
    return Standing(
        study=study.id,
        at=study.at,
        kind=study.kind,
        candidates=tuple(study.candidates),
        criteria=tuple(criterion.name for criterion in criteria_of(study)),
        rows=int(study.sample["rows"]),
        of=int(study.sample["of"]),
        overlap=study.overlap,
        shared=study.shared,
        judged=sum(done for done, _ in people.values()),
        left=free + sum(left for _, left in people.values()),
        people=people,
        mine=own if person in study.people else None,
    )


def _free_for(session: Session, study: str, person: str) -> int:
    """Return of how many tasks that the person has not had a slot is still nobody's."""
    had = select(HumanAssignmentRow.task).where(
        HumanAssignmentRow.study == study, HumanAssignmentRow.rater == person
    )
    query = select(func.count(HumanAssignmentRow.task.distinct())).where(
        HumanAssignmentRow.study == study,
        HumanAssignmentRow.rater.is_(None),
        HumanAssignmentRow.state == "open",
        HumanAssignmentRow.task.not_in(had),
    )
    return int(session.scalar(query) or 0)


def _done(own: Counter[str]) -> int:
    return own["done"] + own["skipped"]


def _left(own: Counter[str]) -> int:
    return own["open"] + own["leased"]
