"""Gate: decide by today's criteria and limits on a finished evaluation; no model is asked."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import Artifact
from tutelage.core.errors import DataError
from tutelage.evaluation.gate import Verdict, decide
from tutelage.evaluation.runner import STAGE
from tutelage.store.artifacts import ArtifactRow
from tutelage.workflows.context import Context, find_artifact, last_output, made_from
from tutelage.workflows.evaluation.evaluate import source_of
from tutelage.workflows.evaluation.evaluate_candidates import rival_name
from tutelage.workflows.evaluation.evaluate_evidence import check_rules, golden_files, requirements
from tutelage.workflows.evaluation.evaluate_job import Job
from tutelage.workflows.evaluation.evaluate_reload import KIND, reload


def gate(ctx: Context, evaluation: Artifact, *, against: Sequence[str] | None = None) -> Verdict:
    """Return the verdict over a finished evaluation, by the settings as they are now.

    Raises ConfigError for a criterion that can't be, DataError for files that can't be read.
    """
    dataset = dataset_of(ctx, evaluation)
    rules = ctx.config.evaluate.against if against is None else against
    who = evaluation.meta.get("candidate", {})
    folder = ctx.workspace.runs / f"gate-{evaluation.short}"
    hosted = any(
        (found := find_artifact(ctx.store, parent)) is not None and found.kind == "hosted"
        for parent in evaluation.parents
    )
    job = Job(
        ctx, dataset, None, folder, folder,
        source=None if hosted else source_of(ctx),
        against=tuple(rival_name(spec) for spec in rules),
        golden=golden_files(ctx),
        key=who.get("key"),
    )  # fmt: skip
    check_rules(job, beside=tuple(who.get("rivals", ())))
    try:
        task, evidence = reload(job, evaluation)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    asked = requirements(job, task, evidence.scored)
    return decide(evidence, ctx.config.evaluate.guards, asked)


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict as plain data."""
    return {
        "verdict": verdict.outcome,
        "sentence": verdict.sentence,
        "criteria": [
            {"name": c.name, "outcome": c.outcome, "sentence": c.sentence, "figures": c.figures}
            for c in verdict.criteria
        ],
    }


def find_evaluation(ctx: Context, prefix: str) -> Artifact:
    """Return the evaluation whose id starts so (4 digits or more). Raises DataError if none."""
    found = _starting(ctx, prefix) if len(prefix) >= 4 else []
    if len(found) == 1:
        artifact = find_artifact(ctx.store, found[0])
        if artifact is not None:
            return artifact
    if found:
        raise DataError(f"{prefix!r} fits several evaluations", fix="Type more digits")
    newest = ", ".join(digest[:12] for digest in evaluations(ctx)[:5])
    raise DataError(
        f"there is no evaluation {prefix!r}",
        fix=f"The newest are {newest}" if newest else "Run `tutelage evaluate` first",
    )


def evaluations(ctx: Context) -> list[str]:
    """Return the hashes of all evaluations, newest first."""
    with ctx.store.session() as session:
        query = select(ArtifactRow.hash).where(ArtifactRow.kind == KIND)
        return list(session.scalars(query.order_by(ArtifactRow.created_at.desc())))


def newest_evaluation(ctx: Context, adapter: Artifact) -> Artifact | None:
    """Return the loop's own evaluation of an adapter, else the newest there is, or None."""
    last = last_output(ctx, STAGE)
    if last is not None and adapter.hash in last.parents:
        return last
    made = (find_artifact(ctx.store, digest) for digest in evaluations(ctx))
    return next((found for found in made if found and adapter.hash in found.parents), None)


def _starting(ctx: Context, prefix: str) -> list[str]:
    with ctx.store.session() as session:
        query = select(ArtifactRow.hash).where(
            ArtifactRow.kind == KIND, ArtifactRow.hash.startswith(prefix)
        )
        return list(session.scalars(query.limit(2)))


def dataset_of(ctx: Context, evaluation: Artifact) -> Artifact:
    """Return the dataset version that an evaluation asked. Raises DataError if it is gone."""
    found = made_from(ctx.store, evaluation)
    if found is not None:
        return found
    raise DataError(
        "the evaluation's dataset version is gone",
        where=evaluation.short,
        fix="Run `tutelage evaluate` again",
    )
