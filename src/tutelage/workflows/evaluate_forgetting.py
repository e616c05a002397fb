"""What tuning cost in general ability: the probes of an evaluation, each kept once it is done."""

from __future__ import annotations

import json
from pathlib import Path

from tutelage.core.artifact import canonical
from tutelage.core.events import Event
from tutelage.core.workspace import atomic_write
from tutelage.evaluation.forgetting import Forgetting, ProbeResult, compare, measure
from tutelage.evaluation.runner import STAGE, Bench
from tutelage.workflows.evaluate_job import SEED, Job

PROBES = "probes-*.json"  # what was measured, kept with the evaluation


def forgetting(job: Job, bench: Bench) -> Forgetting | None:
    """Measure base and tuned on the general probes; None where there is nothing tuned."""
    if bench.adapter is None:
        return None
    results = []
    for name, adapter in (("base", None), ("tuned", bench.adapter)):
        folder = job.shared if name == "base" and job.own_base else job.folder
        path = folder / f"probes-{name}.json"
        if not path.exists():
            bench.emit(Event(STAGE, "note", f"general questions and texts, {name} model"))
            bench.engine.set_adapter(adapter)
            atomic_write(path, canonical(measure(bench.engine).as_dict()))
        results.append(ProbeResult(**json.loads(path.read_bytes())))
    confidence = job.ctx.config.evaluate.confidence
    return compare(results[0], results[1], confidence=confidence, seed=SEED)


def remembered(folder: Path, confidence: float) -> Forgetting | None:
    """Return what a finished evaluation's folder says; None where nothing was measured."""
    base, tuned = folder / "probes-base.json", folder / "probes-tuned.json"
    if not (base.is_file() and tuned.is_file()):
        return None
    results = [ProbeResult(**json.loads(path.read_bytes())) for path in (base, tuned)]
    return compare(results[0], results[1], confidence=confidence, seed=SEED)
