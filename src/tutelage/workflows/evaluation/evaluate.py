"""Evaluate: candidates on the frozen test split, what was forgotten, the verdict, the report.

Answers are journalled in runs/evaluate-<inputs>/ while they are made, so a killed evaluation
continues; the finished evaluation is an immutable folder and its scores are rows of the store.
Where only criteria or limits changed, the answers of an earlier evaluation are judged again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from tutelage.core.artifact import Artifact, content_hash
from tutelage.core.errors import DataError
from tutelage.evaluation.candidates import BASE, FEW_SHOT, pick_shots
from tutelage.evaluation.gate import Evidence
from tutelage.evaluation.runner import STAGE
from tutelage.evaluation.task import Task, check_scorers
from tutelage.inference.models import ModelSource, locate_model
from tutelage.workflows.context import Context, StageOutcome, last_output, run_stage
from tutelage.workflows.evaluation import evaluate_hosted, evaluate_reload
from tutelage.workflows.evaluation.evaluate_answers import answered
from tutelage.workflows.evaluation.evaluate_candidates import (
    Entrant,
    named_artifact,
    of_artifact,
    resolve,
    rival_name,
    rivals,
)
from tutelage.workflows.evaluation.evaluate_engines import (
    Engines,
    LoadedEngine,
    OpenEngine,
    open_transformers,
)
from tutelage.workflows.evaluation.evaluate_evidence import check_rules, gather, golden_files
from tutelage.workflows.evaluation.evaluate_forgetting import carry, probe_inputs
from tutelage.workflows.evaluation.evaluate_job import Job
from tutelage.workflows.evaluation.evaluate_more import more_inputs
from tutelage.workflows.evaluation.evaluate_write import finish
from tutelage.workflows.release.registry import catch_up

__all__ = [
    "LoadedEngine", "OpenEngine", "evaluate", "evaluate_all", "evaluate_named",
    "open_transformers",
]  # fmt: skip

# what decides but changes no answer
_AFTERWARDS = {"criteria", "guards", "confidence", "must_pass", "against", "judge"}


def evaluate(
    ctx: Context,
    dataset: Artifact,
    adapter: Artifact | None = None,
    *,
    against: Sequence[str] | None = None,
    open_engine: OpenEngine = open_transformers,
) -> StageOutcome:
    """Compare the adapter with the base model on the test split of `dataset`.

    Without an adapter only the base candidates are measured and nothing is decided. The artifact's
    meta holds verdict, sentence, primary, forgetting, criteria and the report's path.
    """
    source = source_of(ctx, adapter)
    entrant = of_artifact(ctx, adapter, source) if adapter is not None else None
    return evaluate_all(
        ctx, dataset, [entrant], source=source, against=against, open_engine=open_engine
    )[0]


def source_of(ctx: Context, adapter: Artifact | None = None) -> ModelSource | None:
    """Return the project's base model on this machine; None if `adapter` is at a service."""
    if adapter is not None and adapter.kind == evaluate_hosted.KIND:
        return None
    return locate_model(ctx.config.model, ctx.workspace.root)


def evaluate_all(
    ctx: Context,
    dataset: Artifact,
    entrants: Sequence[Entrant | None],
    *,
    source: ModelSource | None,
    against: Sequence[str] | None = None,
    open_engine: OpenEngine = open_transformers,
) -> list[StageOutcome]:
    """Evaluate each candidate on the same rows; each gets an evaluation of its own.

    A base model is loaded once, and base, few-shot and rivals answer once for all. `against` takes
    the place of evaluate.against. Raises DataError or ConfigError before anything is loaded.
    """
    rules = tuple(ctx.config.evaluate.against if against is None else against)
    jobs = [_job(ctx, dataset, entrant, source, rules) for entrant in entrants]
    hosted = next((e.hosted for e in entrants if e is not None and e.hosted), None)
    outcomes = []
    with Engines(ctx, open_engine, hosted) as engines:
        for job, inputs in jobs:
            outcomes.append(run_stage(ctx, _stage(ctx, job.entrant), inputs, _work(job, engines)))
    for job, _ in jobs:
        shutil.rmtree(job.folder, ignore_errors=True)
        shutil.rmtree(job.shared, ignore_errors=True)
    return outcomes


def _stage(ctx: Context, entrant: Entrant | None) -> str:
    """Return the stage's name: that of the newest adapter is the loop's own."""
    newest = last_output(ctx, "train")
    if newest is None or (entrant is not None and newest.hash in entrant.parents[:1]):
        return STAGE
    return f"{STAGE}-{entrant.key[:12] if entrant else 'base'}"


def _job(
    ctx: Context,
    dataset: Artifact,
    entrant: Entrant | None,
    source: ModelSource | None,
    against: tuple[str, ...],
) -> tuple[Job, dict[str, Any]]:
    """Return the job and the inputs of its stage."""
    config = ctx.config
    files = check_scorers(config, ctx.workspace.root)
    own = probe_inputs(ctx)
    beside = rivals(ctx, entrant, against, source)
    sets = golden_files(ctx)
    service = entrant.hosted if entrant and entrant.hosted else None
    shared = {
        "dataset": dataset.hash,
        "model": source.digest if source else str(service.meta["base_url"]) if service else "",
        "prompt": config.prompt,
        "task": config.task,
        "output": config.output.model_dump(mode="json"),
        "evaluate": config.evaluate.model_dump(mode="json", exclude=_AFTERWARDS),
        **({"scorers": files} if files else {}),
        **({"probes": own} if own else {}),
        **({"rivals": {rival.name: rival.key for rival in beside}} if beside else {}),
    }
    asked = {
        **shared,
        "entrant": entrant.key if entrant else None,
        **({"golden": {name: file.digest for name, file in sets.items()}} if sets else {}),
    }
    rules = config.evaluate.model_dump(mode="json", include=_AFTERWARDS)
    inputs = {**asked, "rules": {**rules, "against": list(against)}, **more_inputs(ctx)}
    key = entrant.key if entrant else None
    place = ctx.workspace.runs / f"evaluate-{content_hash(shared)[:12]}"
    folder = place / (entrant.key[:12] if entrant else "base")
    names = tuple(rival_name(spec) for spec in against)
    job = Job(ctx, dataset, entrant, folder, place, source, beside, names, sets, key,
              content_hash(asked))  # fmt: skip
    check_rules(job)
    return job, inputs


def _work(job: Job, engines: Engines) -> Any:
    """Return the stage's work: judge the answers of an earlier evaluation, or ask."""

    def work() -> Artifact:
        earlier = evaluate_reload.same_answers(job)
        if earlier is not None:
            task, evidence = evaluate_reload.reload(job, earlier, asking=True)
            carry(job, job.ctx.path_of(earlier))
        else:
            task, evidence = _ask(job, engines)
        shots = pick_shots(task.train, job.ctx.config.evaluate.few_shot)
        return finish(job, task, shots if FEW_SHOT in evidence.scored else (), evidence)

    return work


def _ask(job: Job, engines: Engines) -> tuple[Task, Evidence]:
    found = answered(job, engines)
    return found.task, gather(job, found)


def evaluate_named(
    ctx: Context,
    names: Sequence[str] = (),
    *,
    against: Sequence[str] | None = None,
    open_engine: OpenEngine = open_transformers,
) -> list[StageOutcome]:
    """Evaluate candidates by name on the newest dataset version; none named: the newest adapter.

    A name is an adapter's id, a release, base, stable, or a folder with an adapter or a model.
    Raises DataError for a name that nobody has.
    """
    outcomes = _evaluate_named(ctx, names, against, open_engine)
    catch_up(ctx)
    return outcomes


def _evaluate_named(
    ctx: Context,
    names: Sequence[str],
    against: Sequence[str] | None,
    open_engine: OpenEngine,
) -> list[StageOutcome]:
    from tutelage.workflows.outputs import require_output

    dataset = require_output(ctx, "curate")
    if not names:
        adapter = require_output(ctx, "train")
        return [evaluate(ctx, dataset, adapter, against=against, open_engine=open_engine)]
    adapters = [named_artifact(ctx, name) for name in names]
    hosted = next((a for a in adapters if a is not None and a.kind == evaluate_hosted.KIND), None)
    if hosted is not None and len(names) > 1:
        raise DataError("a model at a service is evaluated alone", fix="Name it without others")
    if hosted is not None:
        return [evaluate(ctx, dataset, hosted, against=against, open_engine=open_engine)]
    source = source_of(ctx)
    entrants = [None if name == BASE else resolve(ctx, name, source) for name in names]
    return evaluate_all(
        ctx, dataset, entrants, source=source, against=against, open_engine=open_engine
    )
