"""Evaluate: all candidates on the frozen test split, what was forgotten, the verdict, the report.

Answers are journalled in runs/evaluate-<inputs>/ while they are made, so a killed evaluation
continues; the finished evaluation is an immutable folder and its scores are rows of the store.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tutelage.core.artifact import Artifact, content_hash
from tutelage.core.events import Event
from tutelage.data.version import load_version
from tutelage.evaluation import golden
from tutelage.evaluation.baseline import TITLE as TFIDF_TITLE
from tutelage.evaluation.baseline import tfidf_answers
from tutelage.evaluation.candidates import BASE, TFIDF, TUNED, Candidate, make_candidates
from tutelage.evaluation.forgetting import Forgetting
from tutelage.evaluation.gate import Evidence
from tutelage.evaluation.rows import Journal, RowResult
from tutelage.evaluation.runner import STAGE, Bench, run
from tutelage.evaluation.scoring import Scored, differences, score_candidate, with_scores
from tutelage.evaluation.task import Task, check_scorers, make_task, with_specials
from tutelage.evaluation.usage import p95_ratio
from tutelage.inference.models import ModelSource, locate_model
from tutelage.workflows import evaluate_hosted
from tutelage.workflows.context import Context, StageOutcome, run_stage
from tutelage.workflows.evaluate_forgetting import forgetting
from tutelage.workflows.evaluate_job import SEED, Job
from tutelage.workflows.evaluate_more import more_scores
from tutelage.workflows.evaluate_write import finish


@dataclass(frozen=True)
class LoadedEngine:
    """A model ready to answer, how it counts tokens, and its control tokens."""

    engine: Any  # evaluation.runner.Engine; with `only_text` it can do no more than write
    count_tokens: Callable[[str], int]
    specials: tuple[str, ...] = ()
    only_text: bool = False


OpenEngine = Callable[[ModelSource, int], LoadedEngine]


def open_transformers(source: ModelSource, batch_size: int) -> LoadedEngine:
    """Return the reference engine with the base model loaded."""
    from tutelage.inference.transformers import TransformersGenerator

    engine = TransformersGenerator(source, batch_size=batch_size)
    return LoadedEngine(engine, lambda text: len(engine.tokenizer(text)["input_ids"]),
                        engine.specials)  # fmt: skip


def evaluate(
    ctx: Context,
    dataset: Artifact,
    adapter: Artifact | None = None,
    *,
    open_engine: OpenEngine = open_transformers,
) -> StageOutcome:
    """Compare the adapter with the base model on the test split of `dataset`.

    Without an adapter only the base candidates are measured and nothing is decided. The artifact's
    meta holds verdict, sentence, primary, forgetting, criteria and the report's path.
    """
    config = ctx.config
    files = check_scorers(config, ctx.workspace.root)
    if adapter is not None and adapter.kind == evaluate_hosted.KIND:
        model, load = str(adapter.meta["base_url"]), partial(_open_hosted, ctx, adapter)
    else:
        source = locate_model(config.model, ctx.workspace.root)
        model, load = source.digest, partial(_open_local, ctx, source, open_engine)
    inputs = {
        "dataset": dataset.hash,
        "adapter": adapter.hash if adapter else None,
        "model": model,
        "prompt": config.prompt,
        "task": config.task,
        "output": config.output.model_dump(mode="json"),
        "evaluate": config.evaluate.model_dump(mode="json"),
        **({"scorers": files} if files else {}),
    }
    folder = ctx.workspace.runs / f"evaluate-{content_hash(inputs)[:12]}"
    job = Job(ctx, dataset, adapter, folder)
    outcome = run_stage(ctx, STAGE, inputs, lambda: _work(job, load))
    if not outcome.skipped:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _open_local(ctx: Context, source: ModelSource, open_engine: OpenEngine) -> LoadedEngine:
    ctx.emit(Event(STAGE, "start", f"loading {source.name}"))
    return open_engine(source, ctx.config.evaluate.batch_size)


def _open_hosted(ctx: Context, adapter: Artifact) -> LoadedEngine:
    ctx.emit(Event(STAGE, "start", "asking the service"))
    engine = evaluate_hosted.hosted_engine(ctx, adapter)
    return LoadedEngine(engine, evaluate_hosted.count_tokens, only_text=True)


def _work(job: Job, load: Callable[[], LoadedEngine]) -> Artifact:
    config, emit = job.ctx.config, job.ctx.emit
    version = load_version(job.ctx.path_of(job.dataset))
    with job.timed("load"):
        loaded = load()
    try:
        task = make_task(
            config, version.rows("train"), version.rows("test"), version.cluster_of,
            loaded.count_tokens,
        )  # fmt: skip
        task = with_specials(task, loaded.specials)
        must_pass = golden.resolve(config.evaluate.must_pass, task.rows)
        candidates = make_candidates(
            task, few_shot=config.evaluate.few_shot, tuned=job.adapter is not None,
            constrained=not loaded.only_text,
        )  # fmt: skip
        adapter_dir = job.ctx.path_of(job.adapter) if job.adapter else None
        bench = Bench(loaded.engine, adapter_dir, config.evaluate.batch_size, emit)
        journal = Journal(job.folder / "rows.jsonl")
        with job.timed("answers"):
            run(task, candidates, bench, journal)
        with job.timed("forgetting"):
            forgotten = None if loaded.only_text else forgetting(job, bench)
    finally:
        loaded.engine.close()
    with job.timed("scores"):
        scored = _score(job, task, candidates, journal)
    evidence = _evidence(job, task, scored, forgotten, must_pass)
    return finish(job, task, candidates, evidence)


def _score(
    job: Job, task: Task, candidates: list[Candidate], journal: Journal
) -> dict[str, Scored]:
    scorers = task.scorers(job.ctx.config, job.ctx.workspace.root)
    confidence = job.ctx.config.evaluate.confidence
    answers: dict[str, dict[str, RowResult]] = {
        c.name: {row.id: found for row in task.rows if (found := journal.any(c.name, row.id))}
        for c in candidates
    }
    titles = {c.name: c.title for c in candidates}
    baseline = tfidf_answers(task, seed=SEED)
    if baseline:
        answers[TFIDF] = {row.item: row for row in baseline}
        titles[TFIDF] = TFIDF_TITLE
    more = more_scores(job, task, answers)
    scored = {}
    for name, given in answers.items():
        found = score_candidate(task, scorers, given, (name, titles[name]), confidence=confidence)
        scored[name] = with_scores(task, found, more.get(name, {}), confidence=confidence)
    return scored


def _evidence(
    job: Job,
    task: Task,
    scored: dict[str, Scored],
    forgotten: Forgetting | None,
    must_pass: list[str],
) -> Evidence:
    confidence = job.ctx.config.evaluate.confidence
    latency = None
    failed: list[str] = []
    if TUNED in scored:
        ours, base = scored[TUNED].rows.values(), scored[BASE].rows.values()
        latency = p95_ratio(list(ours), list(base), confidence=confidence, seed=SEED)
        failed = golden.failures(must_pass, scored[TUNED].scores[task.primary])
    return Evidence(
        primary=task.primary,
        confidence=confidence,
        scored=scored,
        comparisons=differences(task, scored, confidence=confidence, seed=SEED),
        forgetting=forgotten,
        latency=latency,
        must_pass=tuple(must_pass),
        must_fail=tuple(failed),
    )
