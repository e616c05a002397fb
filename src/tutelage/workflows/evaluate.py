"""Evaluate: all candidates on the frozen test split, what was forgotten, the verdict, the report.

Answers are journalled in runs/evaluate-<inputs>/ while they are made, so a killed evaluation
continues; the finished evaluation is an immutable folder and its scores are rows of the store.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tutelage.core.artifact import (
    MANIFEST,
    Artifact,
    canonical,
    content_hash,
    describe,
    hash_files,
)
from tutelage.core.events import Event
from tutelage.core.workspace import atomic_dir, atomic_write
from tutelage.data.version import load_version
from tutelage.evaluation import golden, report, report_html, report_text
from tutelage.evaluation.baseline import TITLE as TFIDF_TITLE
from tutelage.evaluation.baseline import tfidf_answers
from tutelage.evaluation.candidates import BASE, FEW_SHOT, TFIDF, TUNED, Candidate, make_candidates
from tutelage.evaluation.forgetting import Forgetting, ProbeResult, compare, measure
from tutelage.evaluation.gate import Evidence, decide
from tutelage.evaluation.rows import Journal, RowResult
from tutelage.evaluation.runner import STAGE, Bench, run
from tutelage.evaluation.scoring import Scored, differences, score_candidate
from tutelage.evaluation.task import Task, make_task, with_specials
from tutelage.evaluation.usage import p95_ratio
from tutelage.inference.models import ModelSource, locate_model
from tutelage.store.scores import EvaluationRow, ScoreRow
from tutelage.workflows import evaluate_hosted
from tutelage.workflows.context import Context, StageOutcome, run_stage

SEED = 0  # of every resampling; the answers themselves are greedy
_KIND = "evaluation"
_FILES = ("evaluation.json", "rows.jsonl", "golden.json")


@dataclass(frozen=True)
class LoadedEngine:
    """A model ready to answer, how it counts tokens, and its control tokens."""

    engine: Any  # evaluation.runner.Engine; with `only_text` it can do no more than write
    count_tokens: Callable[[str], int]
    specials: tuple[str, ...] = ()
    only_text: bool = False


OpenEngine = Callable[[ModelSource, int], LoadedEngine]


@dataclass
class _Job:
    """One evaluation on its way."""

    ctx: Context
    dataset: Artifact
    adapter: Artifact | None
    folder: Path  # the journal's
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)


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
    }
    folder = ctx.workspace.runs / f"evaluate-{content_hash(inputs)[:12]}"
    job = _Job(ctx, dataset, adapter, folder)
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


def _work(job: _Job, load: Callable[[], LoadedEngine]) -> Artifact:
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
            forgotten = None if loaded.only_text else _forgetting(job, bench)
    finally:
        loaded.engine.close()
    with job.timed("scores"):
        scored = _score(job, task, candidates, journal)
    evidence = _evidence(job, task, scored, forgotten, must_pass)
    return _finish(job, task, candidates, evidence)


def _forgetting(job: _Job, bench: Bench) -> Forgetting | None:
    """Measure base and tuned on the general probes; each is kept as soon as it is done."""
    if bench.adapter is None:
        return None
    results = []
    for name, adapter in (("base", None), ("tuned", bench.adapter)):
        path = job.folder / f"probes-{name}.json"
        if not path.exists():
            bench.emit(Event(STAGE, "note", f"general questions and texts, {name} model"))
            bench.engine.set_adapter(adapter)
            atomic_write(path, canonical(measure(bench.engine).as_dict()))
        results.append(ProbeResult(**json.loads(path.read_bytes())))
    confidence = job.ctx.config.evaluate.confidence
    return compare(results[0], results[1], confidence=confidence, seed=SEED)


def _score(
    job: _Job, task: Task, candidates: list[Candidate], journal: Journal
) -> dict[str, Scored]:
    scorers = task.scorers(job.ctx.config)
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
    return {
        name: score_candidate(task, scorers, given, (name, titles[name]), confidence=confidence)
        for name, given in answers.items()
    }


def _evidence(
    job: _Job,
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


def _finish(job: _Job, task: Task, candidates: list[Candidate], evidence: Evidence) -> Artifact:
    """Decide, write the folder, and keep every score in one transaction."""
    config = job.ctx.config
    verdict = decide(evidence, config.evaluate.guards)
    shots = next((c.shots for c in candidates if c.name == FEW_SHOT), ())
    document = report.build(
        report.Findings(config.name, task, evidence, verdict, config.evaluate.batch_size, SEED,
                        shots, job.seconds)
    )  # fmt: skip
    folder, digest = _write(job, task, evidence, document)
    path = job.ctx.workspace.relative(folder)
    meta = {
        "verdict": verdict.outcome,
        "sentence": verdict.sentence,
        "primary": document["primary"],
        "forgetting": document["forgetting"]["number"] if document["forgetting"] else None,
        "criteria": [
            {"name": c["name"], "outcome": c["outcome"], "sentence": c["sentence"]}
            for c in document["verdict"]["criteria"]
        ],
        "lines": report_text.lines(document),
        "report": f"{path}/report.html",
        "rows": document["rows"],
        "notes": document["notes"],
        "seconds": job.seconds,
    }
    parents = [job.dataset.hash, *([job.adapter.hash] if job.adapter else [])]
    artifact = describe(_KIND, digest, path, parents=parents, seed=SEED, meta=meta)
    manifest = folder / MANIFEST
    if not manifest.exists():
        atomic_write(manifest, artifact.model_dump_json(indent=2).encode())
    _keep_scores(job, artifact, evidence)
    job.ctx.emit(Event(STAGE, "done", verdict.sentence, data={"verdict": verdict.outcome}))
    return artifact


def _write(job: _Job, task: Task, evidence: Evidence, document: dict[str, Any]) -> tuple[Path, str]:
    """Write the evaluation's files into a folder named by their hash."""
    staged = job.folder / "out"
    staged.mkdir(parents=True, exist_ok=True)
    best = evidence.scored.get(TUNED, evidence.scored[BASE])
    chosen = golden.pick_golden(task.rows, best.rows, best.scores[task.primary])
    kept = [
        {"id": g.item, "messages": [m.model_dump() for m in g.messages], "expected": g.text}
        for g in chosen
    ]
    rows = [asdict(row) for scored in evidence.scored.values() for row in scored.rows.values()]
    texts = {
        "evaluation.json": json.dumps(document, indent=1, ensure_ascii=False) + "\n",
        "rows.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "golden.json": json.dumps(kept, indent=1, ensure_ascii=False) + "\n",
        "report.html": report_html.as_html(document),
        "report.txt": report_text.as_text(document),
    }
    for name, text in texts.items():
        atomic_write(staged / name, text.encode())
    digest = hash_files(staged, _FILES)

    def fill(target: Path) -> None:
        for name in texts:
            shutil.copyfile(staged / name, target / name)

    return atomic_dir(job.ctx.workspace.artifact_dir("evaluations", digest), fill), digest


def _keep_scores(job: _Job, artifact: Artifact, evidence: Evidence) -> None:
    with job.ctx.store.begin() as session:
        if session.get(EvaluationRow, artifact.hash) is not None:
            return
        session.add(
            EvaluationRow(
                id=artifact.hash,
                dataset=job.dataset.hash,
                candidate=job.adapter.hash if job.adapter else BASE,
                verdict=artifact.meta["verdict"],
                summary={k: artifact.meta[k] for k in ("sentence", "primary", "forgetting")},
            )
        )
        session.add_all(
            ScoreRow(
                evaluation=artifact.hash, item=item, candidate=scored.name, metric=metric,
                value=score.value, evidence=score.evidence,
                source="rule" if metric == "valid_output" else "metric",
            )
            for scored in evidence.scored.values()
            for metric, given in scored.scores.items()
            for item, score in given.items()
        )  # fmt: skip
