"""`tutelage prompt test`: a draft answers the golden set beside the published prompt, same model.

The golden set is the must-pass rows, the golden prompts of the stable release and, if asked, rows
of the test split. Answers are journalled in runs/prompt-<inputs>/, so a killed test continues.
The result is an immutable folder, and is attached to the draft.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tutelage.core.artifact import Artifact, content_hash, describe
from tutelage.core.errors import Conflict, DataError
from tutelage.core.events import Event
from tutelage.core.example import Example, Message
from tutelage.core.workspace import atomic_dir
from tutelage.data.version import DatasetVersion, load_version
from tutelage.evaluation import golden
from tutelage.evaluation.candidates import Candidate
from tutelage.evaluation.rows import Journal, RowResult
from tutelage.evaluation.runner import Bench, run
from tutelage.evaluation.scoring import Scored, score_candidate
from tutelage.evaluation.significance import Difference, paired_difference
from tutelage.evaluation.task import Task, make_task, with_specials
from tutelage.inference.models import locate_model
from tutelage.release import bundle, prompt_moves, prompts
from tutelage.release.bundle import Golden
from tutelage.release.prompt_moves import IMPROVED, REGRESSED, SAME
from tutelage.store.releases import PromptRow
from tutelage.workflows.context import Context, last_output, register
from tutelage.workflows.evaluation import evaluate_hosted
from tutelage.workflows.evaluation.evaluate_candidates import stable_release
from tutelage.workflows.evaluation.evaluate_engines import Engines, OpenEngine, open_transformers
from tutelage.workflows.outputs import require_output
from tutelage.workflows.release.prompt import adopt, whoami

KIND, STAGE = "prompt_test", "prompt"
DRAFT, PUBLISHED = "draft", "published"
SEED = 0  # of the resampling
SHOWN = 20  # changed rows in the document; the counts are of all


@dataclass(frozen=True)
class Subject:
    """The model that both prompts are asked with. `name` is what people call it."""

    name: str
    adapter: Path | None = None
    hash: str | None = None
    hosted: Artifact | None = None  # where a service tuned it


@dataclass(frozen=True)
class _Trial:
    ctx: Context
    row: PromptRow
    against: PromptRow | None
    subject: Subject
    version: DatasetVersion
    golden: tuple[Golden, ...]
    rows: list[Example] = field(default_factory=list)
    must_pass: list[str] = field(default_factory=list)


def trial(
    ctx: Context,
    version: str | None = None,
    *,
    rows: int = 0,
    by: str | None = None,
    open_engine: OpenEngine = open_transformers,
) -> dict[str, Any]:
    """Test a version (the newest draft if None) against the published one and attach the result.

    `rows` test rows join the golden set. Returns the document that is kept: outcome, sentence,
    difference, what changed. Raises DataError if there is no draft or nothing to test on.
    """
    if rows < 0:
        raise DataError("the number of rows can't be negative", fix="Give --rows 0 or more")
    adopt(ctx, by=by)
    row, against = _pair(ctx, version)
    dataset = require_output(ctx, "curate")
    trial = _gather(ctx, row, against, load_version(ctx.path_of(dataset)), rows)
    key = content_hash(
        [row.hash, against and against.hash, trial.subject.hash, dataset.hash,
         locate_model(ctx.config.model, ctx.workspace.root).digest,
         [r.id for r in trial.rows], ctx.config.evaluate.model_dump(mode="json")]
    )  # fmt: skip
    folder = ctx.workspace.runs / f"prompt-{key[:12]}"
    scored, limit = _answer(trial, folder, open_engine)
    document = _document(trial, scored) | {"max_new_tokens": limit}
    artifact = _keep(ctx, document, scored, dataset, trial.subject)
    shutil.rmtree(folder, ignore_errors=True)
    evidence = {
        "artifact": artifact.hash, "path": artifact.path, "outcome": document["outcome"],
        "sentence": document["sentence"], "against": against.hash if against else None,
        "rows": len(trial.rows),
    }  # fmt: skip
    prompt_moves.attach_test(ctx.store, row.hash, evidence, author=by or whoami())
    ctx.emit(Event(STAGE, "done", document["sentence"]))
    return document | {"artifact": artifact.hash, "path": artifact.path}


def subject_of(ctx: Context) -> Subject:
    """Return the model in use: the stable release's adapter, else the newest trained, else none."""
    release = stable_release(ctx)
    if release is not None:
        manifest = bundle.manifest_of(release)
        if manifest.adapter is not None:
            bundle.verify_release(ctx.workspace, release)
            folder = ctx.workspace.home / manifest.adapter.path
            return Subject(release.name, folder, manifest.adapter.hash)
    trained = last_output(ctx, "train")
    if trained is not None and trained.kind == evaluate_hosted.KIND:
        name = f"the tuned model {trained.short} at the service"
        return Subject(name, ctx.path_of(trained), trained.hash, trained)
    if trained is not None and trained.kind == "adapter" and ctx.path_of(trained).exists():
        return Subject(f"adapter {trained.short}", ctx.path_of(trained), trained.hash)
    return Subject("the base model")


def _pair(ctx: Context, version: str | None) -> tuple[PromptRow, PromptRow | None]:
    against = prompts.published(ctx.store)
    row = prompts.find(ctx.store, version) if version else prompts.newest_draft(ctx.store)
    if row is None:
        raise DataError(
            "there is no draft of the prompt to test", fix="Make one with `tutelage prompt draft`"
        )
    if against is not None and row.hash == against.hash:
        raise Conflict(
            f"version {row.number} is the published one, there is nothing to compare it with",
            fix="Name a draft; `tutelage prompt list` shows them",
        )
    return row, against


def _gather(
    ctx: Context, row: PromptRow, against: PromptRow | None, version: DatasetVersion, count: int
) -> _Trial:
    """Return the trial with its rows: must-pass, golden, then `count` test rows by hash."""
    test = [r for r in version.rows("test") if r.answer is not None]
    must_pass = golden.resolve(ctx.config.evaluate.must_pass, test)
    release = stable_release(ctx)
    kept = bundle.manifest_of(release).golden if release else ()
    by_id = {r.id: r for r in test}
    chosen = {i: by_id[i] for i in must_pass}
    for item in kept:
        chosen.setdefault(item.id, by_id.get(item.id) or _example(item))
    for extra in sorted(test, key=lambda r: content_hash(r.id))[:count]:
        chosen.setdefault(extra.id, extra)
    if not chosen:
        raise DataError(
            "there is nothing to test on: no must-pass row, no golden prompt of a stable release",
            fix="Run again with --rows 50, or name rows in evaluate.must_pass",
        )
    return _Trial(
        ctx, row, against, subject_of(ctx), version, kept, list(chosen.values()), must_pass
    )


def _example(item: Golden) -> Example:
    turns = [Message.model_validate(turn) for turn in item.messages]
    answer = Message(role="assistant", content=item.reference or item.expected)
    return Example(messages=(*turns, answer))


def _answer(trial: _Trial, folder: Path, open_engine: OpenEngine) -> tuple[dict[str, Scored], int]:
    """Let both prompts answer every row and score them."""
    ctx, config = trial.ctx, trial.ctx.config
    hosted = trial.subject.hosted
    source = None if hosted else locate_model(config.model, ctx.workspace.root)
    with Engines(ctx, open_engine, hosted) as engines:
        loaded = engines.use(source)
        task = make_task(
            config, trial.version.rows("train"), trial.rows, trial.version.cluster_of,
            loaded.count_tokens,
        )  # fmt: skip
        task = with_specials(task, loaded.specials)
        journal = Journal(folder / "rows.jsonl")
        bench = Bench(loaded.engine, trial.subject.adapter, config.evaluate.batch_size, ctx.emit)
        for name, text in _texts(trial).items():
            candidate = Candidate(name, f"{name} prompt", adapter=bench.adapter is not None)
            run(replace(task, prompt=text), [candidate], bench, journal)
    return {name: _scored(trial, task, name, journal) for name in _texts(trial)}, (
        task.decoding.max_tokens
    )


def _texts(trial: _Trial) -> dict[str, str]:
    texts = {DRAFT: trial.row.text}
    return texts | ({PUBLISHED: trial.against.text} if trial.against else {})


def _scored(trial: _Trial, task: Task, name: str, journal: Journal) -> Scored:
    config = trial.ctx.config
    made = task.scorers(config, trial.ctx.workspace.root, trial.ctx.emit)
    scorers = {task.primary: made[task.primary]}
    answers = {r.id: found for r in task.rows if (found := journal.any(name, r.id))}
    return score_candidate(
        task, scorers, answers, (name, name), confidence=config.evaluate.confidence
    )


def _document(trial: _Trial, scored: dict[str, Scored]) -> dict[str, Any]:
    config, primary = trial.ctx.config, trial.ctx.config.primary_metric
    ours = _values(scored, DRAFT, primary)
    theirs = _values(scored, PUBLISHED, primary)
    ids = [i for i in ours if i in theirs]
    found = _difference(trial, [ours[i] for i in ids], [theirs[i] for i in ids], ids)
    failed = golden.failures(trial.must_pass, scored[DRAFT].scores[primary])
    kept = [g.id for g in trial.golden]
    lost = [g for g in kept if g in ids and theirs[g] == 1.0 and ours[g] < 1.0]
    outcome = _outcome(found, failed, lost)
    document = {
        "project": config.name,
        "version": {"number": trial.row.number, "hash": trial.row.hash},
        "against": trial.against and {"number": trial.against.number, "hash": trial.against.hash},
        "model": {"name": trial.subject.name, "adapter": trial.subject.hash},
        "metric": primary,
        "rows": len(trial.rows),
        "scores": {name: one.means[primary].estimate for name, one in scored.items()},
        "unscored": {name: one.unscored(primary) for name, one in scored.items()},
        "difference": asdict(found) | {"confidence": config.evaluate.confidence} if found else None,
        "must_pass": {"rows": len(trial.must_pass), "failed": failed},
        "golden": {"rows": len(kept), "same_text": _same_text(trial, scored[DRAFT]), "lost": lost},
        "outcome": outcome,
        **_changed(trial.rows, scored, (ours, theirs)),
    }
    return document | {"sentence": _sentence(document)}


def _values(scored: dict[str, Scored], name: str, metric: str) -> dict[str, float]:
    """Return a candidate's scores by row; rows without one are left out."""
    given = scored[name].scores[metric] if name in scored else {}
    return {i: score.value for i, score in given.items() if score.value is not None}


def _difference(
    trial: _Trial, ours: list[float], theirs: list[float], ids: Sequence[str]
) -> Difference | None:
    if not ids:
        return None
    return paired_difference(
        ours, theirs, clusters=[trial.version.cluster_of(i) for i in ids],
        confidence=trial.ctx.config.evaluate.confidence, seed=SEED,
    )  # fmt: skip


def _same_text(trial: _Trial, draft: Scored) -> int:
    """Return how many golden prompts the draft answers word for word as they were released."""
    return sum(
        g.id in draft.rows and draft.rows[g.id].text.strip() == g.expected.strip()
        for g in trial.golden
    )


def _outcome(found: Difference | None, failed: Sequence[str], lost: Sequence[str]) -> str:
    if failed or lost or (found is not None and found.high < 0):
        return REGRESSED
    return IMPROVED if found is not None and found.low > 0 else SAME


def _sentence(document: dict[str, Any]) -> str:
    number, rows, metric = document["version"]["number"], document["rows"], document["metric"]
    parts = []
    if document["must_pass"]["failed"]:
        parts.append(f"{len(document['must_pass']['failed'])} must-pass rows fail")
    if document["golden"]["lost"]:
        parts.append(
            f"{len(document['golden']['lost'])} of {document['golden']['rows']} golden prompts, "
            "answered right with the published version, are answered wrong"
        )
    found = document["difference"]
    if found is None:
        score = document["scores"][DRAFT]
        parts.append(f"{metric} {score:.1%} on {rows} rows, with nothing to compare it with")
    else:
        word = "better" if found["low"] > 0 else "worse" if found["high"] < 0 else "no difference"
        against = document["against"]["number"]
        parts.append(
            f"{metric} {found['estimate'] * 100:+.1f} points against version {against} "
            f"({found['low'] * 100:+.1f} to {found['high'] * 100:+.1f}) on {found['n']} rows: "
            + (f"it is {word}" if word != "no difference" else "no difference can be seen")
        )
    return f"Version {number}: {'; '.join(parts)}"


def _changed(
    rows: Sequence[Example],
    scored: dict[str, Scored],
    values: tuple[dict[str, float], dict[str, float]],
) -> dict[str, Any]:
    """Return the rows that are answered otherwise, the worse ones first, and their counts."""
    counts = {"worse": 0, "better": 0, "other_words": 0, "same": 0}
    if PUBLISHED not in scored:
        return {"changed": [], "counts": counts}
    found = []
    for row in rows:
        new, old = scored[DRAFT].rows.get(row.id), scored[PUBLISHED].rows.get(row.id)
        mine, before = values[0].get(row.id), values[1].get(row.id)
        kind = _kind(new, old, mine, before)
        counts[kind] += 1
        if kind != "same":
            found.append(
                {"id": row.id, "kind": kind, "input": row.input_text, "expected": row.answer,
                 "before": old.text if old else None, "after": new.text if new else None,
                 "score_before": before, "score_after": mine}
            )  # fmt: skip
    order = list(counts)
    found.sort(key=lambda r: order.index(str(r["kind"])))
    return {"changed": found[:SHOWN], "counts": counts}


def _kind(
    new: RowResult | None, old: RowResult | None, mine: float | None, before: float | None
) -> str:
    if mine is not None and before is not None and mine != before:
        return "better" if mine > before else "worse"
    same = new is not None and old is not None and new.text.strip() == old.text.strip()
    return "same" if same else "other_words"


def _keep(
    ctx: Context,
    document: dict[str, Any],
    scored: dict[str, Scored],
    dataset: Artifact,
    subject: Subject,
) -> Artifact:
    """Write the result's folder, named by its content, and register it."""
    rows = [asdict(row) for one in scored.values() for row in one.rows.values()]
    plain = json.loads(json.dumps(document, default=str).replace("NaN", "null"))
    digest = content_hash([plain, rows])

    def fill(folder: Path) -> None:
        text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
        (folder / "test.json").write_text(text, encoding="utf-8")
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "rows.jsonl").write_text(lines, encoding="utf-8")

    folder = atomic_dir(ctx.workspace.artifact_dir("prompt_tests", digest), fill)
    parents = [dataset.hash, *([subject.hash] if subject.hash else [])]
    meta = {"sentence": document["sentence"], "outcome": document["outcome"]}
    path = ctx.workspace.relative(folder)
    return register(ctx.store, describe(KIND, digest, path, parents=parents, seed=SEED, meta=meta))
