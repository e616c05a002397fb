"""Studies in the store: finding one, its judgements that count, and what the statistics read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core.artifact import Artifact
from tutelage.core.errors import DataError
from tutelage.core.example import Example
from tutelage.data.version import load_version
from tutelage.evaluation.human.rubric import Criterion, criteria_from
from tutelage.evaluation.human.votes import NOBODY, Mark, Vote
from tutelage.store.artifacts import ArtifactRow
from tutelage.store.human import (
    HumanAssignmentRow,
    HumanJudgementRow,
    HumanStudyRow,
    HumanTaskRow,
)
from tutelage.workflows.context import Context, find_artifact, last_output, made_from

_VALUES = {"first": 1.0, "tie": 0.5, "second": 0.0}
_LEAST_ID = 4  # digits that name a study or an evaluation


@dataclass(frozen=True)
class Evaluated:
    """An evaluation's rows and each candidate's texts: candidate → example id → text."""

    artifact: Artifact
    rows: dict[str, Example]
    clusters: dict[str, str]
    texts: dict[str, dict[str, str]]


def find_study(session: Session, name: str | None = None) -> HumanStudyRow:
    """Return a study by the start of its id, or the newest; DataError if there is none."""
    query = select(HumanStudyRow).order_by(HumanStudyRow.at.desc(), HumanStudyRow.id)
    if name is None:
        row = session.scalars(query.limit(1)).first()
        if row is None:
            raise DataError("there is no study yet", fix="Make one: `tutelage human new --to NAME`")
        return row
    found = list(session.scalars(query.where(HumanStudyRow.id.startswith(name)).limit(2)))
    if len(found) != 1 or len(name) < _LEAST_ID:
        what = "several studies start with" if len(found) > 1 else "there is no study"
        raise DataError(f"{what} {name!r}", fix="`tutelage human status` lists the studies")
    return found[0]


def criteria_of(study: HumanStudyRow) -> tuple[Criterion, ...]:
    """Return a study's criteria; empty where pairs are judged."""
    return criteria_from(study.criteria) if study.criteria else ()


def counting(session: Session, tasks: Iterable[int]) -> list[HumanJudgementRow]:
    """Return the newest answer of each assignment of these tasks, oldest first.

    What was skipped or undone last is not there.
    """
    newest: dict[str, HumanJudgementRow] = {}
    for part in chunks(sorted(set(tasks))):
        rows = session.scalars(
            select(HumanJudgementRow)
            .where(HumanJudgementRow.task.in_(part))
            .order_by(HumanJudgementRow.number)
        )
        newest.update({row.assignment: row for row in rows})
    found = [row for row in newest.values() if row.kind == "answer"]
    return sorted(found, key=lambda row: row.number)


def chunks(values: list[Any], size: int = 500) -> Iterable[list[Any]]:
    """Yield parts that fit into one query."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def votes_of(session: Session, study: HumanStudyRow) -> list[Vote]:
    """Return the votes of a pairwise study; rows with equal texts tie without a rater."""
    tasks = tasks_of(session, study)
    places = _places(session, study)
    votes = [
        Vote(t.item, t.cluster, NOBODY, t.first, t.second or "", 0.5)
        for t in tasks.values()
        if not t.asked
    ]
    for row in counting(session, tasks):
        task = tasks[row.task]
        votes.append(
            Vote(
                task.item, task.cluster, row.rater, task.first, task.second or "",
                _VALUES[row.choice or "tie"], row.left, row.seconds, places[row.assignment],
            )
        )  # fmt: skip
    return votes


def marks_of(session: Session, study: HumanStudyRow) -> list[Mark]:
    """Return the marks of a rubric study."""
    tasks, criteria = tasks_of(session, study), criteria_of(study)
    places = _places(session, study)
    return [
        Mark(
            tasks[row.task].item, tasks[row.task].cluster, row.rater, tasks[row.task].first,
            {c.name: c.value(int(row.levels[c.name])) for c in criteria if c.name in row.levels},
            row.seconds, places[row.assignment],
        )
        for row in counting(session, tasks)
    ]  # fmt: skip


def tasks_of(session: Session, study: HumanStudyRow) -> dict[int, HumanTaskRow]:
    """Return a study's tasks by their number."""
    rows = session.scalars(select(HumanTaskRow).where(HumanTaskRow.study == study.id))
    return {row.id: row for row in rows}


def _places(session: Session, study: HumanStudyRow) -> dict[str, int]:
    rows = session.execute(
        select(HumanAssignmentRow.id, HumanAssignmentRow.place).where(
            HumanAssignmentRow.study == study.id
        )
    )
    return dict(list(rows.tuples()))


def evaluated(ctx: Context, name: str | None = None) -> Evaluated:
    """Return the newest evaluation with its answers, or the one whose hash starts with `name`.

    Raises DataError if there is none, or its dataset version is gone.
    """
    artifact = last_output(ctx, "evaluate") if name is None else _named(ctx, name)
    if artifact is None or not ctx.path_of(artifact).exists():
        raise DataError(
            "there is no evaluation yet",
            where=str(ctx.workspace.root),
            fix="Run `tutelage evaluate` first: people judge the answers it keeps",
        )
    dataset = made_from(ctx.store, artifact)
    if dataset is None:
        raise DataError(
            "the evaluation's dataset version is not known here",
            where=artifact.short,
            fix="Run `tutelage evaluate` again",
        )
    version = load_version(ctx.path_of(dataset))
    rows = {row.id: row for row in version.rows("test")}
    texts: dict[str, dict[str, str]] = {}
    with (ctx.path_of(artifact) / "rows.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["finish"] != "error" and not entry.get("sample") and entry["item"] in rows:
                texts.setdefault(entry["candidate"], {})[entry["item"]] = entry["text"]
    clusters = {item: version.cluster_of(item) for item in rows}
    return Evaluated(artifact, rows, clusters, texts)


def _named(ctx: Context, name: str) -> Artifact:
    with ctx.store.session() as session:
        hashes = session.scalars(
            select(ArtifactRow.hash).where(
                ArtifactRow.kind == "evaluation", ArtifactRow.hash.startswith(name)
            )
        ).all()
    found = find_artifact(ctx.store, hashes[0]) if len(hashes) == 1 else None
    if found is None or len(name) < _LEAST_ID:
        what = "several evaluations start with" if len(hashes) > 1 else "there is no evaluation"
        raise DataError(f"{what} {name!r}", fix="Leave it out to take the newest one")
    return found
