"""Write a finished evaluation: its folder, its artifact, and every score as a row of the store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tutelage.core.artifact import MANIFEST, Artifact, describe, hash_files
from tutelage.core.events import Event
from tutelage.core.example import Example
from tutelage.core.workspace import atomic_dir, atomic_write
from tutelage.evaluation import golden, report, report_html, report_text
from tutelage.evaluation.candidates import BASE, TUNED
from tutelage.evaluation.gate import Evidence, decide
from tutelage.evaluation.runner import STAGE
from tutelage.evaluation.scorers.base import Score
from tutelage.evaluation.task import Task
from tutelage.release.prompts import prompt_hash
from tutelage.store.scores import EvaluationRow, ScoreRow
from tutelage.workflows.evaluation.evaluate_evidence import requirements
from tutelage.workflows.evaluation.evaluate_forgetting import PROBES
from tutelage.workflows.evaluation.evaluate_job import SEED, Job

_KIND = "evaluation"
_FILES = ("evaluation.json", "rows.jsonl", "golden.json")


def finish(job: Job, task: Task, shots: Sequence[Example], evidence: Evidence) -> Artifact:
    """Decide, write the folder, and keep every score in one transaction."""
    config = job.ctx.config
    asked = requirements(job, task, evidence.scored)
    verdict = decide(evidence, config.evaluate.guards, asked)
    document = report.build(
        report.Findings(config.name, task, evidence, verdict, config.evaluate.batch_size, SEED,
                        tuple(shots), job.seconds, _lineage(job))
    )  # fmt: skip
    document["candidate"] = _who(job)
    document["golden_sets"] = [asdict(found) for found in evidence.golden.values()]
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
        "usage": {c["name"]: c["usage"] for c in document["candidates"] if c["usage"]},
        "cost": document["cost"],
        "seconds": job.seconds,
        "candidate": document["candidate"],
        "asked": job.asked,
    }
    parents = [job.dataset.hash, *(job.entrant.parents if job.entrant else ())]
    artifact = describe(_KIND, digest, path, parents=parents, seed=SEED, meta=meta)
    manifest = folder / MANIFEST
    if not manifest.exists():
        atomic_write(manifest, artifact.model_dump_json(indent=2).encode())
    _keep_scores(job, artifact, evidence)
    job.ctx.emit(Event(STAGE, "done", verdict.sentence, data={"verdict": verdict.outcome}))
    return artifact


def _lineage(job: Job) -> dict[str, str]:
    """Return what the evaluation was made from, by name: hashes of dataset, model and prompt."""
    prompt = job.entrant.prompt if job.entrant else job.ctx.config.prompt
    found = {"dataset version": job.dataset.short, "prompt": prompt_hash(prompt)[:12]}
    if job.source is not None:
        found["base model"] = f"{job.source.name} {job.source.short}"
    if job.entrant is not None and job.entrant.hash != BASE:
        found[job.entrant.title] = job.entrant.hash[:12]
    return found


def _who(job: Job) -> dict[str, Any]:
    """Return who was evaluated, and beside whom."""
    who = job.entrant
    return {
        "name": who.name if who else BASE,
        "title": who.title if who else "base model",
        "hash": who.hash if who else None,
        "key": who.key if who else None,
        "rivals": {rival.name: rival.title for rival in job.rivals},
        "against": list(job.against),
    }


def _write(job: Job, task: Task, evidence: Evidence, document: dict[str, Any]) -> tuple[Path, str]:
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
    probes = [path for folder in (job.shared, job.folder) for path in folder.glob(PROBES)]

    def fill(target: Path) -> None:
        for name in texts:
            shutil.copyfile(staged / name, target / name)
        for path in probes:
            shutil.copyfile(path, target / path.name)

    return atomic_dir(job.ctx.workspace.artifact_dir("evaluations", digest), fill), digest


def _keep_scores(job: Job, artifact: Artifact, evidence: Evidence) -> None:
    with job.ctx.store.begin() as session:
        if session.get(EvaluationRow, artifact.hash) is not None:
            return
        session.add(
            EvaluationRow(
                id=artifact.hash,
                dataset=job.dataset.hash,
                candidate=job.entrant.hash if job.entrant else BASE,
                verdict=artifact.meta["verdict"],
                summary={k: artifact.meta[k] for k in ("sentence", "primary", "forgetting")},
            )
        )
        session.add_all(
            ScoreRow(
                evaluation=artifact.hash, item=item, candidate=scored.name, metric=metric,
                value=score.value, evidence=score.evidence,
                source=_source(metric, score),
            )
            for scored in evidence.scored.values()
            for metric, given in scored.scores.items()
            for item, score in given.items()
        )  # fmt: skip


def _source(metric: str, score: Score) -> str:
    """Return who gave a score: metric, rule, judge, human."""
    given = score.evidence.get("source")
    return str(given) if given else ("rule" if metric == "valid_output" else "metric")
