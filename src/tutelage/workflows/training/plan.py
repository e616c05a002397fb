"""Plan a training run: what the rows, the model and the machine say it should do, and why.

Nothing is trained; at most one step is timed on a throw-away copy of the model.
"""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tutelage.core.artifact import Artifact
from tutelage.core.events import Event, silent
from tutelage.data.assign import one_cluster
from tutelage.data.version import DatasetVersion, load_version
from tutelage.feedback.segment import require_trainable
from tutelage.inference.models import locate_model
from tutelage.workflows.context import Context
from tutelage.workflows.data.preferences import material

if TYPE_CHECKING:
    from pathlib import Path

    from tutelage.core.config import Train
    from tutelage.training.job import TrainingJob
    from tutelage.training.planner import Plan
    from tutelage.training.profile import DataProfile, Machine, Measured, ModelProfile
    from tutelage.training.recipe import Recipe


def plan(ctx: Context, dataset: Artifact, *, probe: bool = True) -> Plan:
    """Return what training would do and why. With `probe` one real step is timed for the minutes.

    Raises DataError if no row can be trained on.
    """
    clusters, counts = dataset.meta.get("clusters", {}), dataset.meta.get("counts", {})
    together = one_cluster(counts, clusters.get("largest", 0))
    dataset = material(ctx, dataset)
    version = load_version(ctx.path_of(dataset))
    made = plan_rows(ctx, version, ctx.config.train, probe=probe, unsplit=together)
    told = [*made.warnings, *dataset.meta.get("preferences", {}).get("warnings", [])]
    return made.model_copy(update={"warnings": told})


def plan_rows(
    ctx: Context,
    version: DatasetVersion,
    settings: Train,
    *,
    probe: bool = True,
    unsplit: str | None = None,
) -> Plan:
    """Return the plan for the rows of `version` under `settings`, which need not be the project's.

    `unsplit` says why no split gives them validation rows, if none does. Raises DataError if no
    row can be trained on, ConfigError if the method is unknown.
    """
    from tutelage.inference.transformers_prepare import prepare
    from tutelage.training.profile import profile_machine, profile_model
    from tutelage.training.recipe import Recipe

    source = locate_model(ctx.config.model, ctx.workspace.root)
    model = profile_model(source.name, prepare(source))
    limit = min(settings.max_tokens or model.context, model.context)
    job = make_job(ctx, version, Recipe(max_tokens=limit), ctx.workspace.runs)
    if probe:
        ctx.emit(Event("plan", "note", "timing one step on this machine"))
    machine = profile_machine(ctx.workspace.home)
    return plan_job(job, ctx.config.task, model, machine, settings, probe=probe, unsplit=unsplit)


def plan_job(
    job: TrainingJob,
    task: str,
    model: ModelProfile,
    machine: Machine,
    settings: Train,
    *,
    probe: bool = True,
    unsplit: str | None = None,
) -> Plan:
    """Return the plan for a job's rows; of its recipe only `max_tokens` counts.

    What that cuts or rejects is among the plan's warnings.
    """
    from tutelage.inference.transformers_load import load_tokenizer
    from tutelage.training.methods import resolve
    from tutelage.training.packing import BLOCK
    from tutelage.training.planner import make_plan
    from tutelage.training.planner_rules import Situation, decide
    from tutelage.workflows.training.plan_cuts import lost_rows, measure

    tokenizer = load_tokenizer(job.model)
    counted = replace(_counted(job, task, tokenizer), unsplit=unsplit)
    method = settings.method
    if method == "auto":
        method = str(decide("method", Situation(counted, model, machine))[0])
    limit = job.recipe.max_tokens
    if method == "cpt" and settings.max_tokens is None:
        limit = min(BLOCK, limit)
    recipe = job.recipe.model_copy(
        update={"method": method, "max_tokens": limit, "cloze": settings.cloze}
    )
    objective = resolve(method).objective(recipe)
    prepared, need = measure(objective, replace(job, recipe=recipe), tokenizer)
    data = _profile(objective.rows(prepared.train), counted, settings)
    data = replace(data, row_max=need or min(data.row_max, limit))
    lost = lost_rows(prepared.coverage, job.train, model, limit, need)
    made = make_plan(data, model, machine, settings)
    made = made.model_copy(update={"warnings": [*made.warnings, *lost]})
    if not probe or made.refusal:
        return made
    measured = _probe(replace(job, recipe=made.recipe), tokenizer)
    again = make_plan(data, model, machine, settings, measured=measured)
    return again.model_copy(update={"warnings": [*again.warnings, *lost]})


def make_job(
    ctx: Context, version: DatasetVersion, recipe: Recipe, run_dir: Path, **more: Any
) -> TrainingJob:
    """Return the job that trains `version` with `recipe`; the test split is not in it.

    Raises DataError if a row of its train split is held out by now.
    """
    from tutelage.training.job import TrainingJob

    train = version.rows("train")
    require_trainable(ctx.store, train, where=version.hash[:12])
    return TrainingJob(
        model=locate_model(ctx.config.model, ctx.workspace.root),
        train=train,
        validation=version.rows("validation"),
        prompt=ctx.config.prompt,
        recipe=recipe,
        run_dir=run_dir,
        output=ctx.config.output.format(),
        **more,
    )


def _counted(job: TrainingJob, task: str, tokenizer: Any) -> DataProfile:
    """Return the profile as far as it is known without token ids."""
    from tutelage.training.profile import DataProfile, row_facts

    return DataProfile(
        task=task,
        rows=len(job.train),
        validation_rows=len(job.validation),
        labels=len({row.label for row in job.train if row.label is not None}),
        prompt_p50=0, prompt_max=0, answer_p50=0, answer_max=0, row_p95=0, row_max=0,
        shared=0.0, prefix=0, **row_facts(job.train, tokenizer),
    )  # fmt: skip


def _profile(rows: list[Any], counted: DataProfile, settings: Train) -> DataProfile:
    """Return the whole profile: lengths and prefixes from the encoded rows."""
    from tutelage.training.profile import profile_data

    found = profile_data(
        rows, task=counted.task, labels=counted.labels, batch=settings.batch_size or 8,
        validation_rows=counted.validation_rows,
    )  # fmt: skip
    return replace(
        found, least_label=counted.least_label, texts=counted.texts, pairs=counted.pairs,
        fertility=counted.fertility, unsplit=counted.unsplit,
    )  # fmt: skip


def _probe(job: TrainingJob, tokenizer: Any) -> Measured:
    """Run one step of the planned recipe on a model of its own."""
    from tutelage.training.methods import resolve
    from tutelage.training.probe import probe

    method = resolve(job.recipe.method)
    objective, tuning = method.objective(job.recipe), method.tuning(job.recipe)
    items = objective.prepare(job, tokenizer, silent).train
    started = time.perf_counter()
    model = tuning.attach(objective.load(job), job.recipe)
    loaded = time.perf_counter() - started
    try:
        return replace(probe(model, objective, items, job.recipe), load_seconds=loaded)
    finally:
        del model
        gc.collect()
