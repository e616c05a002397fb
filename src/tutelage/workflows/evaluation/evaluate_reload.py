"""A finished evaluation read back: its answers, scores and probes, ready to be judged again.

Scores come from the store as they are there now, a judge's and people's too; a metric that is new
is scored from the answers. No model is loaded; a judge is asked only where the caller wants it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import Artifact
from tutelage.core.errors import DataError
from tutelage.core.lines import lines_of
from tutelage.data.version import load_version
from tutelage.evaluation.gate import Evidence
from tutelage.evaluation.golden import GoldenSet
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.base import Score
from tutelage.evaluation.scoring import Scored, score_candidate, with_scores
from tutelage.evaluation.task import Task, make_task
from tutelage.store.artifacts import ArtifactRow
from tutelage.store.scores import ScoreRow
from tutelage.workflows.context import Context, find_artifact
from tutelage.workflows.evaluation.evaluate_evidence import evidence_of
from tutelage.workflows.evaluation.evaluate_forgetting import remembered
from tutelage.workflows.evaluation.evaluate_job import Job
from tutelage.workflows.evaluation.evaluate_more import more_scores

KIND = "evaluation"
Table = dict[str, dict[str, dict[str, Score]]]  # candidate → metric → example id → score


def same_answers(job: Job) -> Artifact | None:
    """Return the newest evaluation with the same answers, if its folder is still there."""
    with job.ctx.store.session() as session:
        rows = session.scalars(
            select(ArtifactRow).where(ArtifactRow.kind == KIND).order_by(
                ArtifactRow.created_at.desc()
            )
        )  # fmt: skip
        found = next((row.hash for row in rows if row.meta.get("asked") == job.asked), None)
    artifact = find_artifact(job.ctx.store, found) if found else None
    if artifact is None or not (job.ctx.path_of(artifact) / "rows.jsonl").is_file():
        return None
    return artifact


def reload(job: Job, evaluation: Artifact, *, asking: bool = False) -> tuple[Task, Evidence]:
    """Return the task and the evidence of a finished evaluation, judged by today's settings.

    With `asking` a judge is asked what it was not asked before.
    Raises DataError if a file is missing.
    """
    folder, config = job.ctx.path_of(evaluation), job.ctx.config
    document = read_document(job.ctx, evaluation)
    version = load_version(job.ctx.path_of(job.dataset))
    task = make_task(
        config, version.rows("train"), version.rows("test"), version.cluster_of, len
    )  # fmt: skip
    limit = document["method"]["max_new_tokens"]
    task = replace(task, decoding=task.decoding.model_copy(update={"max_tokens": limit}))
    answers = read_answers(job.ctx, evaluation)
    stored = read_scores(job.ctx, evaluation)
    for candidate, metrics in more_scores(job, task, answers, asking=asking).items():
        stored.setdefault(candidate, {}).update(metrics)
    scorers = task.scorers(config, job.ctx.workspace.root)
    scored: dict[str, Scored] = {}
    for entry in document["candidates"]:
        name, confidence = entry["name"], config.evaluate.confidence
        known = stored.get(name, {})
        one = score_candidate(
            task, scorers, answers.get(name, {}), (name, entry["title"]),
            confidence=confidence, known=known,
        )  # fmt: skip
        beside = {metric: given for metric, given in known.items() if metric not in scorers}
        scored[name] = with_scores(task, one, beside, confidence=confidence)
    sets = {
        found["name"]: GoldenSet(**{**found, "failed": tuple(found["failed"])})
        for found in document.get("golden_sets", [])
        if _unchanged(job, found)
    }
    forgotten = remembered(folder, config.evaluate.confidence)
    return task, evidence_of(job, task, scored, forgotten, sets)


def _unchanged(job: Job, found: Mapping[str, Any]) -> bool:
    file = job.golden.get(found["name"])
    return file is not None and file.digest == found["digest"]


def read_document(ctx: Context, evaluation: Artifact) -> dict[str, Any]:
    """Return evaluation.json. Raises DataError if it can't be read."""
    path = ctx.path_of(evaluation) / "evaluation.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            "the evaluation can't be read", where=str(path), fix="Run `tutelage evaluate` again"
        ) from error
    return found


def read_answers(ctx: Context, evaluation: Artifact) -> dict[str, dict[str, RowResult]]:
    """Return every answer by candidate and example id. Raises DataError if they can't be read."""
    path = ctx.path_of(evaluation) / "rows.jsonl"
    found: dict[str, dict[str, RowResult]] = {}
    try:
        for line in lines_of(path.read_text(encoding="utf-8")):
            row = RowResult(**json.loads(line))
            found.setdefault(row.candidate, {})[row.item] = row
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            "the answers can't be read", where=str(path), fix="Run `tutelage evaluate` again"
        ) from error
    return found


def read_scores(ctx: Context, evaluation: Artifact) -> Table:
    """Return every score that the store keeps of an evaluation."""
    table: Table = {}
    with ctx.store.session() as session:
        rows = session.execute(
            select(
                ScoreRow.candidate, ScoreRow.metric, ScoreRow.item, ScoreRow.value,
                ScoreRow.evidence,
            ).where(ScoreRow.evaluation == evaluation.hash)
        )  # fmt: skip
        for candidate, metric, item, value, evidence in rows:
            table.setdefault(candidate, {}).setdefault(metric, {})[item] = Score(value, evidence)
    return table
