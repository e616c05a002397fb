"""Ask: base, few-shot, rivals and the candidate answer the test rows, and the golden sets.

Who shares a base model is asked while it is loaded. Every answer is journalled; nothing is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tutelage.core.errors import ConfigError
from tutelage.data.version import load_version
from tutelage.evaluation.candidates import (
    BASE,
    FEW_SHOT,
    TUNED,
    Candidate,
    make_candidates,
    shaped,
)
from tutelage.evaluation.forgetting import Forgetting
from tutelage.evaluation.latency import measure_alone
from tutelage.evaluation.rows import Journal, RowResult
from tutelage.evaluation.runner import Bench, run
from tutelage.evaluation.task import Task, make_task, with_specials
from tutelage.workflows.evaluation.evaluate_candidates import Entrant
from tutelage.workflows.evaluation.evaluate_engines import Engines, LoadedEngine
from tutelage.workflows.evaluation.evaluate_forgetting import forgetting
from tutelage.workflows.evaluation.evaluate_job import Job

_BASES = (BASE, FEW_SHOT)


@dataclass
class Answered:
    """What was asked and what came: answers by candidate and example id, in the report's order."""

    task: Task
    titles: dict[str, str] = field(default_factory=dict)
    answers: dict[str, dict[str, RowResult]] = field(default_factory=dict)
    golden: dict[str, dict[str, RowResult]] = field(default_factory=dict)  # by file
    forgetting: Forgetting | None = None


@dataclass(frozen=True)
class _Sitting:
    """One set of weights and everything that it is asked as."""

    who: Entrant | None  # None: the base model
    candidates: list[Candidate]
    journal: Journal


def answered(job: Job, engines: Engines) -> Answered:
    """Return every answer of the evaluation, asked for now or found in the journals."""
    with job.timed("load"):
        loaded = engines.use(job.source)
    task = _task(job, loaded)
    found = Answered(task)
    sittings = _sittings(job, task, loaded)
    for sitting in _in_order(job, sittings):
        _sit(job, engines, sitting, found)
    named = [c for sitting in sittings for c in sitting.candidates]
    for candidate in sorted(named, key=lambda c: c.mode != "free"):
        journal = next(s.journal for s in sittings if candidate in s.candidates)
        found.titles[candidate.name] = candidate.title
        found.answers[candidate.name] = _read(task, candidate.name, journal)
    return found


def _task(job: Job, loaded: LoadedEngine) -> Task:
    version = load_version(job.ctx.path_of(job.dataset))
    task = make_task(
        job.ctx.config, version.rows("train"), version.rows("test"), version.cluster_of,
        loaded.count_tokens,
    )  # fmt: skip
    return with_specials(task, loaded.specials)


def _sittings(job: Job, task: Task, loaded: LoadedEngine) -> list[_Sitting]:
    """Return base and few-shot, then the candidate, then its rivals."""
    settings, shared = job.ctx.config.evaluate, Journal(job.shared / "rows.jsonl")
    answers = settings.answers
    if loaded.only_text and task.labels:
        if answers == "list":
            raise ConfigError(
                "this service shows no likelihoods, so its model can't be held to a label list",
                where="tutelage.yaml: evaluate.answers",
                fix="Set it to both or free",
            )
        answers = "free"
    base = make_candidates(task, few_shot=settings.few_shot, tuned=False, answers=answers)
    sittings = [_Sitting(None, base, shared)]
    everybody = [(TUNED, job.entrant, Journal(job.folder / "rows.jsonl"))] if job.entrant else []
    everybody += [(rival.name, rival, shared) for rival in job.rivals]
    for name, who, journal in everybody:
        if who is None:
            continue
        prompt = None if who.prompt.strip() == task.prompt.strip() else who.prompt
        one = Candidate(name, who.title, adapter=who.folder is not None, prompt=prompt)
        sittings.append(_Sitting(who, shaped(task, [one], answers), journal))
    return sittings


def _in_order(job: Job, sittings: Sequence[_Sitting]) -> list[_Sitting]:
    """Return the sittings so that each base model is loaded once, the project's first."""

    def order(sitting: _Sitting) -> tuple[bool, str]:
        source = job.source if sitting.who is None else sitting.who.source
        return source != job.source, source.digest if source else ""

    return sorted(sittings, key=order)


def _sit(job: Job, engines: Engines, sitting: _Sitting, found: Answered) -> None:
    source = job.source if sitting.who is None else sitting.who.source
    config = job.ctx.config.evaluate
    with job.timed("load"):
        loaded = engines.use(source)
    folder = sitting.who.folder if sitting.who else None
    bench = Bench(loaded.engine, folder, config.batch_size, job.ctx.emit)
    task = with_specials(found.task, loaded.specials)
    with job.timed("answers"):
        run(task, sitting.candidates, bench, sitting.journal)
    if config.latency_rows and not loaded.only_text:
        with job.timed("latency"):
            measure_alone(task, sitting.candidates, bench, sitting.journal, config.latency_rows)
    if sitting.who is None or sitting.who is not job.entrant:
        return
    with job.timed("answers"):
        _golden(job, task, sitting.candidates[0], bench, found)
    with job.timed("forgetting"):
        found.forgetting = forgetting(job, bench, loaded)


def _golden(job: Job, task: Task, candidate: Candidate, bench: Bench, found: Answered) -> None:
    """Ask the candidate the golden sets, each with a journal of its own."""
    for name, file in job.golden.items():
        journal = Journal(job.folder / f"golden-{file.digest[:12]}.jsonl")
        ids = tuple(row.id for row in file.rows)
        asked = replace(task, rows=file.rows, clusters=ids, samples=0)
        run(asked, [candidate], bench, journal)
        found.golden[name] = _read(asked, candidate.name, journal)


def _read(task: Task, name: str, journal: Journal) -> dict[str, RowResult]:
    return {row.id: found for row in task.rows if (found := journal.any(name, row.id))}
