"""Tune at a service: a dataset version up, a job to its end, an artifact that evaluation can call.

Nothing leaves the machine before three things hold: the user said so, no row is a test row, and no
row holds identifiers. What has happened is in runs/hosted-<fingerprint>/, which stays: the job is
watched, cancelled and kept alive from there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core import plugins
from tutelage.core.artifact import MANIFEST, Artifact, content_hash, describe, hash_files
from tutelage.core.config import Hosted
from tutelage.core.errors import ConfigError, Conflict, DataError
from tutelage.core.events import Event
from tutelage.core.example import Example
from tutelage.core.workspace import atomic_dir, atomic_write
from tutelage.data.privacy.kinds import KINDS
from tutelage.data.privacy.step import PrivacyStep
from tutelage.data.version import DatasetVersion, load_version
from tutelage.feedback.segment import require_trainable
from tutelage.inference.openai import OpenAIGenerator
from tutelage.inference.openai_http import Patience
from tutelage.training.hosted import steps
from tutelage.training.hosted.api import JobsApi
from tutelage.training.hosted.base import CANCELLED, FAILED, STAGE, HostedService, Pace
from tutelage.training.hosted.http import Client
from tutelage.training.hosted.journal import (
    Attempt,
    FileName,
    Journal,
    Record,
    SentFile,
    folder_of,
)
from tutelage.training.hosted.rows import (
    Estimate,
    RowsFile,
    estimate,
    forbid_test,
    render_rows,
    require_enough,
)
from tutelage.training.hosted.steps import HostedRun
from tutelage.workflows.context import Context, StageOutcome, register, run_stage
from tutelage.workflows.data.privacy import detector, kinds_of
from tutelage.workflows.training.hosted_settings import hosted_settings, tell_unused

KIND = "hosted"
_RETRIES = 6  # of a request: with their pauses, half a minute
_REPORT = "hosted.json"
# settings that may be corrected while a job is under way
_CHANGEABLE = ("api_key_env", "api_version", "keep_alive", "deployment")


@dataclass(frozen=True)
class Prepared:
    """What would be sent, and what it would cost. `fingerprint`: 64 hex digits of all of it."""

    settings: Hosted
    version: DatasetVersion
    files: dict[FileName, RowsFile]
    estimate: Estimate
    fingerprint: str

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for `--plan`."""
        rows = {split: file.rows for split, file in self.files.items()}
        rejected = {row: why for file in self.files.values() for row, why in file.rejected.items()}
        return {
            "name": self.fingerprint[:12],
            "base_url": self.settings.base_url,
            "model": self.settings.model,
            "files": rows,
            "rejected": rejected,
            "estimate": self.estimate.as_dict(),
        }


def train_hosted(
    ctx: Context, dataset: Artifact, *, yes: bool = False, pace: Pace | None = None
) -> StageOutcome:
    """Tune `dataset` at the service and return the tuned model's artifact; a cut-off run goes on.

    Raises ConfigError unless `yes` or hosted.upload allows the upload, DataError for rows that may
    not leave, ModelError if the job fails.
    """
    prepared = prepare(ctx, dataset)
    inputs = {"hosted": prepared.fingerprint, "dataset": dataset.hash}

    def work() -> Artifact:
        run = start(ctx, dataset, yes=yes, pace=pace, prepared=prepared)
        with run.journal.locked():
            steps.follow(run)
        return fetch(ctx, run.record, pace)

    return run_stage(ctx, STAGE, inputs, work)


def prepare(ctx: Context, dataset: Artifact) -> Prepared:
    """Return what a job on `dataset` would send and cost; nothing is sent.

    Raises DataError if there are too few rows, a test row is among them, or they are too large.
    """
    settings = hosted_settings(ctx)
    tell_unused(ctx)
    version = load_version(ctx.path_of(dataset))
    prompt = ctx.config.prompt
    require_trainable(ctx.store, version.rows("train"), where=version.hash[:12])
    train = render_rows(version.rows("train"), prompt)
    validation = render_rows(version.rows("validation"), prompt)
    require_enough(train, validation)
    forbid_test((train, validation), version.rows("test"), prompt)
    files: dict[FileName, RowsFile] = {"train": train}
    if validation.rows:
        files["validation"] = validation
    sent = settings.model_dump(
        mode="json", include={"kind", "base_url", "model", "shape", "suffix", "epochs",
                              "batch_size", "learning_rate_multiplier"},
    )  # fmt: skip
    fingerprint = content_hash(
        {
            "settings": sent,
            "project": ctx.config.name,
            "seed": ctx.config.train.seed,
            "files": {split: _sha(file.data) for split, file in files.items()},
        }
    )
    cost = estimate(train, settings.epochs, settings.price_per_million_tokens)
    return Prepared(settings, version, files, cost, fingerprint)


def forbid_identifiers(ctx: Context, prepared: Prepared) -> None:
    """Raise DataError if a row to upload holds identifiers, unless they are allowed or redacted.

    Looks at what is sent alone: the turns, not the fields that stay here.
    """
    done = (prepared.version.manifest.get("privacy") or {}).get("mode")
    if prepared.settings.identifiers == "allow" or done == "redact":
        return
    step = PrivacyStep(
        "flag", kinds_of(ctx), ctx.config.output.format(), find=detector(ctx)
    )  # fmt: skip
    step.run([_bare(row) for split in prepared.files for row in prepared.version.rows(split)])
    if not step.summary.rows:
        return
    kinds = sorted(step.summary.kinds.items(), key=lambda item: -item[1]["found"])
    named = ", ".join(f"{entry['found']} × {KINDS[kind].title}" for kind, entry in kinds[:3])
    count = "1 row holds" if step.summary.rows == 1 else f"{step.summary.rows:,} rows hold"
    raise DataError(
        f"{count} personal or health identifiers ({named}); nothing was uploaded",
        where=str(prepared.version.directory),
        fix="Set data.privacy.mode to redact and run it again, or hosted.identifiers to allow if "
        "they may leave the house",
    )


def start(
    ctx: Context,
    dataset: Artifact,
    *,
    yes: bool = False,
    again: bool = False,
    pace: Pace | None = None,
    prepared: Prepared | None = None,
) -> HostedRun:
    """Upload the rows and make the job, or find it if that was done; return without waiting.

    `again` makes another job after one that failed or was cancelled. Raises ConfigError unless
    `yes` or hosted.upload allows the upload.
    """
    prepared = prepared or prepare(ctx, dataset)
    journal = Journal(folder_of(ctx.workspace.runs, prepared.fingerprint))
    allowed = yes or prepared.settings.upload
    with journal.locked():
        record = journal.load()
        if record is None:
            record = _announce(ctx, journal, prepared, dataset, allowed)
        run = open_run(ctx, record, pace)
        if again and record.attempt.job is not None:
            _another(run, prepared, allowed)
        steps.start(run)
    return run


def _announce(
    ctx: Context, journal: Journal, prepared: Prepared, dataset: Artifact, allowed: bool
) -> Record:
    """Check and confirm, then write down what will be sent, before anything is."""
    forbid_identifiers(ctx, prepared)
    _require_consent(prepared, allowed)
    files: dict[FileName, SentFile] = {}
    for split, file in prepared.files.items():
        atomic_write(journal.folder / f"{split}.jsonl", file.data)
        sha = _sha(file.data)
        name = f"tutelage-{split}-{sha[:16]}.jsonl"
        files[split] = SentFile(name=name, sha256=sha, bytes=len(file.data), rows=file.rows)
    shown = prepared.as_dict()
    settings = prepared.settings
    record = Record(
        fingerprint=prepared.fingerprint,
        project=ctx.config.name,
        kind=settings.kind,
        base_url=settings.base_url,
        model=settings.model,
        dataset=dataset.hash,
        settings=settings.model_dump(mode="json"),
        seed=ctx.config.train.seed,
        estimate=shown["estimate"],
        rejected=shown["rejected"],
        files=files,
        attempts=[_attempt(prepared.fingerprint, 1)],
    )
    journal.save(record)
    ctx.emit(Event(STAGE, "start", prepared.estimate.sentence()))
    for row, why in shown["rejected"].items():
        ctx.emit(Event(STAGE, "warning", f"row {row} is not sent: {why}"))
    return record


def _require_consent(prepared: Prepared, allowed: bool) -> None:
    if not allowed:
        raise ConfigError(
            f"{prepared.estimate.sentence()} would be uploaded to {prepared.settings.base_url}; "
            "nothing was",
            fix="Run it again with --yes, or set hosted.upload to true in tutelage.yaml",
        )


def _another(run: HostedRun, prepared: Prepared, allowed: bool) -> None:
    """Add an attempt after one that failed or was cancelled; its files are looked up anew."""
    steps.look(run)
    attempt = run.record.attempt
    if attempt.status not in (FAILED, CANCELLED):
        raise Conflict(
            f"the job {attempt.job} is {attempt.status.replace('_', ' ')}, so there is no need "
            "for another one",
            fix="Cancel it first, or change a setting such as train.seed for a job beside it",
        )
    _require_consent(prepared, allowed)
    for file in run.record.files.values():
        file.id, file.ready = None, False
    run.record.attempts.append(_attempt(run.record.fingerprint, attempt.number + 1))
    run.save()


def fetch(ctx: Context, record: Record, pace: Pace | None = None) -> Artifact:
    """Fetch the tuned model's name and figures, make it callable, and register its artifact.

    Raises ModelError if the job has made no model.
    """
    run = open_run(ctx, record, pace)
    with run.journal.locked():
        found = steps.results(run, steps.look(run))
        name = steps.publish(run)
        report = {
            **found,
            "kind": record.kind,
            "base_url": record.base_url,
            "model": record.model,
            "callable_as": name,
            "files": {
                split: file.model_dump(include={"name", "sha256", "rows"})
                for split, file in record.files.items()
            },
            "dataset": record.dataset,
            "fingerprint": record.fingerprint,
            "estimate": record.estimate,
        }
        artifact = _file(ctx, run, report)
        for split in record.files:  # the rows lie in the dataset version, one copy is enough
            (run.journal.folder / f"{split}.jsonl").unlink(missing_ok=True)
    ctx.emit(Event(STAGE, "done", artifact.meta["summary"]))
    return artifact


def _file(ctx: Context, run: HostedRun, report: Mapping[str, Any]) -> Artifact:
    """Put the report and the tables into a folder named by their hash, and describe it."""
    source = run.journal.folder
    atomic_write(source / _REPORT, json.dumps(report, indent=1, sort_keys=True).encode())
    names = (_REPORT, *report["tables"])
    digest = hash_files(source, names)
    folder = ctx.workspace.artifact_dir(KIND, digest)

    def fill(target: Path) -> None:
        for name in names:
            shutil.copyfile(source / name, target / name)

    atomic_dir(folder, fill)
    settings = _settings_of(ctx, run.record)
    endpoint = {
        "kind": settings.kind,
        "base_url": settings.base_url,
        "api_key_env": settings.api_key_env,
        "api_version": settings.api_version,
        "model": report["callable_as"],
    }
    losses = ", ".join(
        f"{name.replace('_', ' ')} {report['metrics'][name]:.3f}"
        for name in ("train_loss", "valid_loss")
        if name in report["metrics"]
    )
    meta = {
        **report,
        "endpoint": endpoint,
        "summary": f"{report['tuned']}{f' ({losses})' if losses else ''}",
    }
    artifact = describe(
        KIND, digest, ctx.workspace.relative(folder), parents=[run.record.dataset],
        seed=run.record.seed, meta=json.loads(json.dumps(meta)),
    )  # fmt: skip
    if not (folder / MANIFEST).exists():
        atomic_write(folder / MANIFEST, artifact.model_dump_json(indent=2).encode())
    return register(ctx.store, artifact)


def hosted_generator(
    ctx: Context, artifact: Artifact, *, model: str | None = None, concurrency: int = 8
) -> OpenAIGenerator:
    """Return a generator that asks the tuned model of a hosted artifact, or `model` beside it.

    Raises EnvironmentProblem if the environment lacks the key.
    """
    endpoint = artifact.meta["endpoint"]
    settings = Hosted.model_validate(endpoint)
    model = model or str(endpoint["model"])
    address = _service(settings, ctx.config.name).address("chat/completions", model)
    return OpenAIGenerator.at(address.url, address.headers, model, concurrency=concurrency)


def open_run(ctx: Context, record: Record, pace: Pace | None = None) -> HostedRun:
    """Return a job ready for its next step; the service is the one it was started at."""
    pace = pace or Pace()
    settings = _settings_of(ctx, record)
    journal = Journal(folder_of(ctx.workspace.runs, record.fingerprint))
    api = open_api(settings, record.project, pace)
    return HostedRun(api, journal, record, ctx.emit, pace)


def open_api(settings: Hosted, project: str, pace: Pace) -> JobsApi:
    """Return the calls of a service."""
    client = Client(Patience(_RETRIES, min(0.5, pace.first_s)))
    return JobsApi(_service(settings, project), client)


def _service(settings: Hosted, project: str) -> HostedService:
    made: HostedService = plugins.load("hosted", settings.kind)(settings, project)
    return made


def _settings_of(ctx: Context, record: Record) -> Hosted:
    """Return the settings a job was started with; keys and deployment as they are set now."""
    kept = Hosted.model_validate(record.settings)
    now = ctx.config.hosted
    if now is None or (now.kind, now.base_url) != (kept.kind, kept.base_url):
        return kept
    return kept.model_copy(update={name: getattr(now, name) for name in _CHANGEABLE})


def _attempt(fingerprint: str, number: int) -> Attempt:
    return Attempt(number=number, key=f"{fingerprint[:32]}-{number}")


def _bare(row: Example) -> Example:
    return row.model_copy(update={"meta": {}, "group": None, "time": None})


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
