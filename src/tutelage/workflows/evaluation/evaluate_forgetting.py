"""What tuning cost in general ability: the probes of an evaluation, each kept once it is done.

A model that only writes text (at a service) shows no likelihoods: nothing is measured, and why is
said. Each file of marks carries the questions it is about, so that an evaluation can be judged
again although a project's own probes have changed or gone.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tutelage.core.artifact import canonical
from tutelage.core.events import Event
from tutelage.core.workspace import atomic_write
from tutelage.evaluation.forgetting import Forgetting, Measured, ProbeResult, compare, measure
from tutelage.evaluation.forgetting_probes import Probe, ProbeSet, built_in, own_probes
from tutelage.evaluation.runner import STAGE, Bench
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.evaluate_engines import LoadedEngine
from tutelage.workflows.evaluation.evaluate_job import SEED, Job

PROBES = "probes-*.json"  # what was measured, kept with the evaluation
_DIVERGENCE = "probes-divergence.json"


def probe_inputs(ctx: Context) -> dict[str, str]:
    """Return the digest of each of the project's own sets by name.

    Raises ConfigError or DataError, before anything is loaded, for a file that can't be used.
    """
    found = own_probes(ctx.config.evaluate.probes, ctx.workspace.root)
    return {one.name: one.digest for one in found}


def forgetting(job: Job, bench: Bench, loaded: LoadedEngine) -> Forgetting | None:
    """Measure base and tuned; None where nothing is tuned or the model only writes text."""
    if bench.adapter is None:
        return None
    if loaded.only_text:
        why = "what it forgot is not measured: the service shows no likelihoods"
        bench.emit(Event(STAGE, "note", why))
        return None
    sets = [built_in(), *own_probes(job.ctx.config.evaluate.probes, job.ctx.workspace.root)]
    paths: list[Path] = []
    for name in ("base", "tuned"):  # each adapter is switched on once
        folder = job.shared if name == "base" and job.own_base else job.folder
        bench.emit(Event(STAGE, "note", f"general questions and texts, {name} model"))
        switched = False
        for one in sets:
            path = folder / _file(one, name)
            if not path.exists():
                if not switched:
                    bench.engine.set_adapter(bench.adapter if name == "tuned" else None)
                    switched = True
                marks = {**measure(bench.engine, one).as_dict(), "asked": _asked(one)}
                atomic_write(path, canonical(marks))
        paths += [folder / _file(one, name) for one in sets]
    kl = _divergence(job, bench, loaded)
    pairs = zip(paths[: len(sets)], paths[len(sets) :], strict=True)
    return _compared(list(pairs), kl, job.ctx.config.evaluate.confidence)


def _divergence(job: Job, bench: Bench, loaded: LoadedEngine) -> list[tuple[float, int]] | None:
    """Return (nats, positions) a built-in text; None if the engine can't tell."""
    if loaded.divergence is None or bench.adapter is None:
        return None
    path = job.folder / _DIVERGENCE
    if not path.exists():
        bench.emit(Event(STAGE, "note", "general texts, how far the tuned model moved"))
        found = loaded.divergence(built_in().texts, bench.adapter)
        atomic_write(path, canonical({"texts": [[round(s, 6), n] for s, n in found]}))
    return _nats(path)


def _nats(path: Path) -> list[tuple[float, int]]:
    return [(float(s), int(n)) for s, n in json.loads(path.read_bytes())["texts"]]


def carry(job: Job, earlier: Path) -> None:
    """Keep the marks of an evaluation that is judged again with the new one too."""
    for path in earlier.glob(PROBES):
        atomic_write(job.folder / path.name, path.read_bytes())


def remembered(folder: Path, confidence: float) -> Forgetting | None:
    """Return what a finished evaluation's folder says; None where nothing was measured."""
    first = folder / "probes-base.json", folder / "probes-tuned.json"
    if not all(path.is_file() for path in first):
        return None
    own = [
        (path, path.with_name(path.name.removesuffix("base.json") + "tuned.json"))
        for path in sorted(folder.glob("probes-own-*-base.json"))
    ]
    kl = _nats(folder / _DIVERGENCE) if (folder / _DIVERGENCE).is_file() else None
    return _compared([first, *(pair for pair in own if pair[1].is_file())], kl, confidence)


def _compared(
    pairs: list[tuple[Path, Path]], kl: list[tuple[float, int]] | None, confidence: float
) -> Forgetting:
    """Compare the marks in files; the first pair is the built-in set's."""
    (_, base), (_, tuned) = _read(pairs[0][0]), _read(pairs[0][1])
    own = []
    for before, after in pairs[1:]:
        (asked, was), (_, now) = _read(before), _read(after)
        own.append(Measured(asked, was, now))
    return compare(base, tuned, kl=kl, own=own, confidence=confidence, seed=SEED)


def _file(one: ProbeSet, side: str) -> str:
    own = f"own-{one.name}-{one.digest[:12]}-" if one.digest else ""
    return f"probes-{own}{side}.json"


def _asked(one: ProbeSet) -> dict[str, Any] | None:
    """Return what the built-in set need not say: its questions. Texts are not kept."""
    return {"name": one.name, "probes": [asdict(p) for p in one.probes]} if one.digest else None


def _read(path: Path) -> tuple[ProbeSet, ProbeResult]:
    found = json.loads(path.read_bytes())
    asked = found.pop("asked", None)
    if asked is None:
        return built_in(), ProbeResult(**found)
    probes = tuple(Probe(**{**p, "choices": tuple(p["choices"])}) for p in asked["probes"])
    return ProbeSet(asked["name"], probes, ()), ProbeResult(**found)
