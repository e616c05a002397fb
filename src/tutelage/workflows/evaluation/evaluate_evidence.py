"""From answers to evidence: scores of every candidate, golden sets, time, what may not gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tutelage.core.artifact import hash_file
from tutelage.core.config_criteria import Requirement
from tutelage.core.errors import DataError
from tutelage.core.example import Example
from tutelage.data.version import load_version
from tutelage.evaluation import golden
from tutelage.evaluation.baseline import TITLE as TFIDF_TITLE
from tutelage.evaluation.baseline import tfidf_answers
from tutelage.evaluation.candidates import BASE, CONSTRAINED, FEW_SHOT, STABLE, TFIDF, TUNED
from tutelage.evaluation.forgetting import Forgetting
from tutelage.evaluation.gate import Evidence
from tutelage.evaluation.gate_criteria import check_requirements
from tutelage.evaluation.golden import GoldenSet
from tutelage.evaluation.scorers.apply import score_rows
from tutelage.evaluation.scoring import Scored, differences, score_candidate, with_scores
from tutelage.evaluation.task import Task, metrics_of
from tutelage.evaluation.usage import slowdown
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.evaluate_answers import Answered
from tutelage.workflows.evaluation.evaluate_candidates import stands_for_stable
from tutelage.workflows.evaluation.evaluate_job import SEED, GoldenFile, Job
from tutelage.workflows.evaluation.evaluate_more import more_metrics, more_scores, untrusted


def golden_files(ctx: Context) -> dict[str, GoldenFile]:
    """Return the golden sets that the criteria name; paths count from the project's folder.

    Raises DataError for a file that can't be used.
    """
    found = {}
    for requirement in ctx.config.evaluate.criteria:
        if requirement.golden is not None:
            path = ctx.workspace.root / requirement.golden
            rows = golden.read_set(path, ctx.config.output.format())
            found[requirement.golden] = GoldenFile(tuple(rows), hash_file(path))
    return found


def check_rules(job: Job, *, beside: Sequence[str] = ()) -> None:
    """Raise ConfigError or DataError for a rule that can't hold, before anything is loaded.

    `beside` are more candidates that a criterion may name.
    """
    config = job.ctx.config
    version = load_version(job.ctx.path_of(job.dataset))
    test = version.rows("test")
    for ids in [config.evaluate.must_pass, *(r.must_pass for r in config.evaluate.criteria)]:
        golden.resolve(ids or [], test)
    names = [BASE, FEW_SHOT, STABLE, TFIDF]
    if config.task == "classification":
        names += [name + CONSTRAINED for name in (BASE, FEW_SHOT, STABLE)]
    names += [rival.name for rival in job.rivals if rival.name != STABLE]
    names += [name for name in (*beside, *job.against) if name not in names]
    metrics = [*metrics_of(config), *more_metrics(job.ctx)]
    check_requirements(config.evaluate.criteria, metrics, names)
    _not_trained_on(job, version.rows("train"))


def _not_trained_on(job: Job, train: Sequence[Example]) -> None:
    """Raise DataError if a golden row is a training row: it would prove nothing."""
    known = {row.input_text.strip().lower() for row in train}
    for name, file in job.golden.items():
        twin = next((r for r in file.rows if r.input_text.strip().lower() in known), None)
        if twin is not None:
            raise DataError(
                f"a golden row is in the train split: {twin.input_text[:60]!r}",
                where=name,
                fix="Take it out of one of the two",
            )


def requirements(job: Job, task: Task, scored: Mapping[str, Scored]) -> list[Requirement]:
    """Return the criteria as this evaluation can judge them.

    Ids of must-pass rows are whole. Without a stable release of its own the base stands in for
    it; where the candidate is the stable release, a comparison with it is left out.
    """
    found = []
    for asked in job.ctx.config.evaluate.criteria:
        if asked.must_pass is not None:
            ids = golden.resolve(asked.must_pass, task.rows)
            found.append(asked.model_copy(update={"must_pass": ids}))
        elif asked.than == STABLE and STABLE not in scored:
            instead = stands_for_stable(job.ctx, job.key, job.source)
            found += [] if instead == TUNED else [_than(asked, BASE)]
        else:
            found.append(asked)
    return found


def _than(asked: Requirement, name: str) -> Requirement:
    """Return the requirement with another candidate to compare with."""
    better = asked.better and asked.better.model_copy(update={"than": name})
    not_worse = asked.not_worse and asked.not_worse.model_copy(update={"than": name})
    return asked.model_copy(update={"better": better, "not_worse": not_worse})


def gather(job: Job, found: Answered) -> Evidence:
    """Score what was answered and return all that the gate looks at."""
    task, config = found.task, job.ctx.config
    with job.timed("scores"):
        scorers = task.scorers(config, job.ctx.workspace.root, job.ctx.emit)
        baseline = tfidf_answers(task, seed=SEED)
        if baseline:
            found.answers[TFIDF] = {row.item: row for row in baseline}
            found.titles[TFIDF] = TFIDF_TITLE
        more = more_scores(job, task, found.answers)
        scored = {}
        for name, given in found.answers.items():
            confidence, titles = config.evaluate.confidence, (name, found.titles[name])
            one = score_candidate(task, scorers, given, titles, confidence=confidence)
            scored[name] = with_scores(task, one, more.get(name, {}), confidence=confidence)
        sets = {}
        for name, file in job.golden.items():
            if name in found.golden:
                scores = score_rows(scorers[task.primary], file.rows, found.golden[name])
                sets[name] = golden.judge_set(name, file.rows, scores, file.digest)
    return evidence_of(job, task, scored, found.forgetting, sets)


def evidence_of(
    job: Job,
    task: Task,
    scored: Mapping[str, Scored],
    forgotten: Forgetting | None,
    sets: Mapping[str, GoldenSet],
) -> Evidence:
    """Return the evidence of scored candidates."""
    settings = job.ctx.config.evaluate
    latency, failed = None, []
    must_pass = golden.resolve(settings.must_pass, task.rows)
    if TUNED in scored:
        ours, base = scored[TUNED].rows.values(), scored[BASE].rows.values()
        latency = slowdown(list(ours), list(base), confidence=settings.confidence, seed=SEED)
        failed = golden.failures(must_pass, scored[TUNED].scores[task.primary])
    metrics = {m for one in scored.values() for m in one.scores}
    doubts = {metric: why for metric in metrics if (why := untrusted(job.ctx, metric))}
    return Evidence(
        primary=task.primary,
        confidence=settings.confidence,
        scored=scored,
        comparisons=differences(task, scored, confidence=settings.confidence, seed=SEED),
        forgetting=forgotten,
        latency=latency,
        must_pass=tuple(must_pass),
        must_fail=tuple(failed),
        clusters={row.id: c for row, c in zip(task.rows, task.clusters, strict=True)},
        golden=sets,
        untrusted=doubts,
        against=_against(job, scored),
        seed=SEED,
    )


def _against(job: Job, scored: Mapping[str, Scored]) -> tuple[str, ...]:
    """Return who must be beaten by the names they have here; stable may be the base itself."""
    found = []
    for name in job.against:
        if name == STABLE and STABLE not in scored:
            instead = stands_for_stable(job.ctx, job.key, job.source)
            found += [] if instead == TUNED else [BASE]
        else:
            found.append(name)
    return tuple(dict.fromkeys(found))
