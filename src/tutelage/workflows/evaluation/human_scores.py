"""People's judgements as scores of the one score table, metrics human_win and human_<criterion>.

A judgement belongs to a text, not to an evaluation: where a later evaluation's candidate wrote
the same text for the same row, what people said of it counts there too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.base import Score
from tutelage.store.human import HumanJudgementRow, HumanStudyRow, HumanTaskRow
from tutelage.store.scores import ScoreRow
from tutelage.workflows.evaluation.human_rows import chunks, counting, criteria_of

if TYPE_CHECKING:
    from tutelage.evaluation.task import Task
    from tutelage.workflows.context import Context
    from tutelage.workflows.evaluation.evaluate_job import Job

WIN = "human_win"
SOURCE = "human"
_VALUES = {"first": 1.0, "tie": 0.5, "second": 0.0}

Given = dict[str, dict[str, dict[str, Score]]]  # candidate → metric → example id → score


def human_scores(job: Job, task: Task, answers: Mapping[str, Mapping[str, RowResult]]) -> Given:
    """Return what people said of these answers before: a function of MORE_SCORES."""
    texts = {
        name: {item: row.text for item, row in given.items() if not row.failed}
        for name, given in answers.items()
    }
    with job.ctx.store.session() as session:
        return scores_of(session, texts)


def scores_of(session: Session, texts: Mapping[str, Mapping[str, str]]) -> Given:
    """Return the scores of `texts` (candidate → example id → text): means over people."""
    items = {item for given in texts.values() for item in given}
    tasks = {
        task.id: task
        for part in chunks(sorted(items))
        for task in session.scalars(select(HumanTaskRow).where(HumanTaskRow.item.in_(part)))
        if _same(task, texts)
    }
    if not tasks:
        return {}
    studies = {study.id: study for study in session.scalars(select(HumanStudyRow))}
    said: dict[int, list[HumanJudgementRow]] = defaultdict(list)
    for row in counting(session, tasks):
        said[row.task].append(row)
    pooled: dict[tuple[str, str, str], list[_Said]] = defaultdict(list)
    for number, task in tasks.items():
        for candidate, metric, values in _values(studies[task.study], task, said[number]):
            comments = [row.comment for row in said[number] if row.comment]
            pooled[candidate, metric, task.item].append(_Said(values, comments))
    found: Given = {}
    for (candidate, metric, item), parts in pooled.items():
        found.setdefault(candidate, {}).setdefault(metric, {})[item] = _score(parts)
    return found


def refresh_scores(session: Session, evaluation: str, items: Iterable[str]) -> None:
    """Bring the score rows of an evaluation's items to what people say now, in this transaction.

    Judgements are kept for ever; these rows are made from them.
    """
    for part in chunks(sorted(set(items))):
        tasks = session.scalars(
            select(HumanTaskRow)
            .join(HumanStudyRow, HumanStudyRow.id == HumanTaskRow.study)
            .where(HumanStudyRow.evaluation == evaluation, HumanTaskRow.item.in_(part))
        )
        texts: dict[str, dict[str, str]] = defaultdict(dict)
        for task in tasks:
            texts[task.first][task.item] = task.first_text
            if task.second is not None and task.second_text is not None:
                texts[task.second][task.item] = task.second_text
        session.execute(
            delete(ScoreRow).where(
                ScoreRow.evaluation == evaluation,
                ScoreRow.source == SOURCE,
                ScoreRow.candidate.in_(list(texts)),
                ScoreRow.item.in_(part),
            )
        )
        session.add_all(
            ScoreRow(
                evaluation=evaluation, item=item, candidate=candidate, metric=metric,
                value=score.value, evidence=score.evidence, source=SOURCE,
            )
            for candidate, metrics in scores_of(session, texts).items()
            for metric, given in metrics.items()
            for item, score in given.items()
        )  # fmt: skip


class _Said:
    """What people said of one answer in one task."""

    def __init__(self, values: list[float], comments: list[str]) -> None:
        self.values, self.comments = values, comments


def _score(parts: list[_Said]) -> Score:
    """Return the mean over tasks of the mean over people, with how many they were."""
    means = [sum(part.values) / len(part.values) if part.values else 0.5 for part in parts]
    evidence: dict[str, Any] = {
        "source": SOURCE,
        "judgements": sum(len(part.values) for part in parts),
        "said": sorted(value for part in parts for value in part.values),
    }
    comments = [comment for part in parts for comment in part.comments]
    return Score(sum(means) / len(means), evidence | ({"comments": comments} if comments else {}))


def _same(task: HumanTaskRow, texts: Mapping[str, Mapping[str, str]]) -> bool:
    """Return whether the texts that were judged are the candidates' texts here."""
    if texts.get(task.first, {}).get(task.item) != task.first_text:
        return False
    return task.second is None or texts.get(task.second, {}).get(task.item) == task.second_text


def _values(
    study: HumanStudyRow, task: HumanTaskRow, said: list[HumanJudgementRow]
) -> Iterable[tuple[str, str, list[float]]]:
    """Yield (candidate, metric, values) of a task; equal texts tie without values."""
    if task.second is not None:
        if said or not task.asked:
            won = [_VALUES[row.choice or "tie"] for row in said]
            yield task.first, WIN, won
            yield task.second, WIN, [1 - value for value in won]
        return
    for criterion in criteria_of(study):
        values = [
            criterion.value(int(row.levels[criterion.name]))
            for row in said
            if criterion.name in row.levels
        ]
        if values:
            yield task.first, f"human_{criterion.name}", values


def human_metrics(ctx: Context) -> list[str]:
    """Return the metrics that people's judgements may bring: a function of METRICS."""
    with ctx.store.session() as session:
        studies = list(session.scalars(select(HumanStudyRow)))
    found = [WIN] if any(study.kind == "pairwise" for study in studies) else []
    names = {str(criterion["name"]) for study in studies for criterion in study.criteria}
    return [*found, *(f"human_{name}" for name in sorted(names))]


def human_inputs(ctx: Context) -> dict[str, Any]:
    """Return the number of the newest judgement, which may change a verdict: one of INPUTS."""
    with ctx.store.session() as session:
        newest = session.scalar(select(func.max(HumanJudgementRow.number)))
    return {"human": newest} if newest else {}
