"""The steps of a job: files up, job made, job watched, results down. Each can be run again.

Every step looks at the journal, then at the service, and only then acts, so that a process killed
at any moment leaves nothing behind that the next one would do twice.
"""

from __future__ import annotations

import csv
import io
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tutelage.core.errors import Conflict, DataError, ModelError
from tutelage.core.events import Emit, Event, silent
from tutelage.core.workspace import atomic_write
from tutelage.training.hosted.api import JobsApi, Json
from tutelage.training.hosted.base import CANCELLED, ENDED, FAILED, STAGE, SUCCEEDED, Pace
from tutelage.training.hosted.http import NotThere, Rejected, once
from tutelage.training.hosted.journal import Attempt, Journal, Record, SentFile, records

KEY = "tutelage"  # of the job's metadata that holds the attempt's key
_READ = frozenset(("processed", "succeeded"))
_UNREADABLE = frozenset(("error", "failed", "deleted"))
_STEP = re.compile(r"\bstep (\d+)(?:\s*/\s*(\d+))?", re.IGNORECASE)
_LOSSES = {"loss": "train_loss", "validation_loss": "valid_loss"}


@dataclass
class HostedRun:
    """One job under way: where it is remembered, who is asked, who is told."""

    api: JobsApi
    journal: Journal
    record: Record
    emit: Emit = silent
    pace: Pace = Pace()

    def save(self) -> None:
        """Keep the record as it is now."""
        self.journal.save(self.record)

    def tell(self, message: str) -> None:
        """Say something to a person."""
        self.emit(Event(STAGE, "note", message))


def start(run: HostedRun) -> Attempt:
    """Upload the files and make the job, each exactly once; return the attempt with its job."""
    attempt = run.record.attempt
    if attempt.job is not None:
        run.tell(f"the job {attempt.job} is there already")
        return attempt
    for split, file in run.record.files.items():
        _send(run, file, (run.journal.folder / f"{split}.jsonl").read_bytes())
    for file in run.record.files.values():
        _await_file(run, file)
    _create(run, attempt)
    return attempt


def _send(run: HostedRun, file: SentFile, data: bytes) -> None:
    if file.id is not None:
        return
    file.sending = True
    run.save()
    found = once(
        lambda: run.api.find_file(file.name, file.bytes),
        lambda: run.api.upload(file.name, data),
        run.api.client,
        file.name,
    )
    file.id, file.sending = str(found["id"]), False
    run.save()
    run.tell(f"uploaded {file.rows:,} rows as {file.name} ({file.id})")


def _await_file(run: HostedRun, file: SentFile) -> None:
    """Wait until the service has read a file; raise DataError if it can't, or has lost it."""
    pause = run.pace.first_s
    while not file.ready:
        try:
            found = run.api.file(str(file.id))
        except NotThere as error:
            file.id = None  # the next run uploads it anew
            run.save()
            raise DataError(
                "the service has lost the rows",
                where=file.name,
                fix="Run the command again; it uploads them anew",
            ) from error
        status = str(found.get("status") or "processed").lower()
        if status in _UNREADABLE:
            file.id = None  # the next run uploads it anew
            run.save()
            detail = found.get("status_details") or found.get("error") or "it says no more"
            raise DataError(
                f"the service can't read the rows ({detail})",
                where=file.name,
                fix="Mend the rows and run the command again",
            )
        if status in _READ:
            file.ready = True
            run.save()
            return
        time.sleep(pause)
        pause = min(run.pace.longest_s, pause * 2)


def _create(run: HostedRun, attempt: Attempt) -> None:
    attempt.sending = True
    run.save()
    made = once(
        lambda: _find_job(run, attempt),
        lambda: run.api.create(job_body(run, attempt)),
        run.api.client,
        "the job",
    )
    attempt.job, attempt.sending = str(made["id"]), False
    attempt.status = str(made.get("status") or "created")
    run.save()
    run.tell(f"started the job {attempt.job} on {run.record.model}")


def job_body(run: HostedRun, attempt: Attempt) -> Json:
    """Return the request that makes the job."""
    record, service = run.record, run.api.service
    settings = record.settings
    given = _chosen(record)
    body: Json = {
        "model": record.model,
        "training_file": record.files["train"].id,
        "seed": record.seed,
        "suffix": settings.get("suffix") or record.project[:40],
    }
    if "validation" in record.files:
        body["validation_file"] = record.files["validation"].id
    shape = settings.get("shape", "auto")
    if (service.shape if shape == "auto" else shape) == "method":
        supervised = {"hyperparameters": given} if given else {}
        body["method"] = {"type": "supervised", "supervised": supervised}
    elif given:
        body["hyperparameters"] = given
    if service.metadata:
        body["metadata"] = {KEY: attempt.key}
    return body


def _find_job(run: HostedRun, attempt: Attempt) -> Json | None:
    """Return the job of this attempt if the service has it already.

    It is known by the key in its metadata; where jobs carry none, by its files, seed, base model
    and hyperparameters, jobs that this project knows of left aside.
    """
    known = {
        earlier.job for record in records(run.journal.folder.parent) for earlier in record.attempts
    }
    for job in run.api.jobs():
        metadata = job.get("metadata") or {}
        if metadata.get(KEY) == attempt.key:
            return job
        if not metadata and job.get("id") not in known and _same(run.record, job):
            return job
    return None


def _same(record: Record, job: Json) -> bool:
    validation = record.files.get("validation")
    used = hyperparameters(job)
    return (
        job.get("training_file") == record.files["train"].id
        and job.get("validation_file") == (validation.id if validation else None)
        and job.get("seed") == record.seed
        and str(job.get("model", "")).startswith(record.model)
        and all(used.get(name, value) == value for name, value in _chosen(record).items())
    )


def _chosen(record: Record) -> Json:
    """Return the hyperparameters that the settings fix, by the API's names."""
    named = {
        "n_epochs": "epochs",
        "batch_size": "batch_size",
        "learning_rate_multiplier": "learning_rate_multiplier",
    }
    found = {theirs: record.settings.get(ours) for theirs, ours in named.items()}
    return {name: value for name, value in found.items() if value is not None}


def look(run: HostedRun) -> Json:
    """Look at the job once: tell its new events, keep its state, return the service's answer."""
    attempt = run.record.attempt
    job_id = _job_of(run.record)
    job = run.api.job(job_id)
    events = run.api.events(job_id, attempt.last_event)
    remaining = left_s(job)
    for event in events:
        _tell_event(run, event, remaining)
    if events:
        attempt.last_event = str(events[-1].get("id"))
    attempt.status = str(job.get("status") or "running").lower()
    attempt.tuned = job.get("fine_tuned_model") or attempt.tuned
    error = job.get("error") or {}
    attempt.problem = error.get("message") if isinstance(error, dict) else str(error)
    run.save()
    return job


def follow(run: HostedRun) -> Json:
    """Look until the job has ended; the pauses grow while nothing changes.

    Raises ModelError if it failed, Conflict if it was cancelled.
    """
    attempt, pause = run.record.attempt, run.pace.first_s
    while True:
        before = (attempt.status, attempt.last_event)
        job = look(run)
        if attempt.status in ENDED:
            break
        if attempt.status != before[0]:
            run.tell(f"{attempt.job}: {attempt.status.replace('_', ' ')}")
        changed = before != (attempt.status, attempt.last_event)
        pause = run.pace.first_s if changed else min(run.pace.longest_s, pause * 2)
        time.sleep(pause)
    require_success(run.record)
    return job


def require_success(record: Record) -> None:
    """Raise ModelError or Conflict, in a sentence, if the newest attempt ended without a model."""
    attempt = record.attempt
    again = "run `tutelage hosted start --again --yes` for another job"
    if attempt.status == FAILED:
        raise ModelError(
            f"the job failed ({attempt.problem or 'the service gives no reason'})",
            where=attempt.job,
            fix=f"Mend what it names and {again}",
        )
    if attempt.status == CANCELLED:
        raise Conflict("the job was cancelled", where=attempt.job, fix=again.capitalize())


def cancel(run: HostedRun) -> str:
    """Cancel the job and return its state; one that has ended stays as it is."""
    job_id = _job_of(run.record)
    job = run.api.job(job_id)
    if str(job.get("status")).lower() not in ENDED:
        try:
            job = run.api.cancel(job_id)
        except Rejected:
            job = run.api.job(job_id)  # it ended meanwhile
            if str(job.get("status")).lower() not in ENDED:
                raise
    return str(job.get("status")).lower()


def results(run: HostedRun, job: Json) -> dict[str, Any]:
    """Fetch what the job made: its tables into the run folder, its figures and checkpoints.

    Raises ModelError if there is no tuned model.
    """
    record, attempt = run.record, run.record.attempt
    require_success(record)
    if attempt.status != SUCCEEDED or not attempt.tuned:
        raise ModelError(
            f"the job has made no model yet (it is {attempt.status.replace('_', ' ')})",
            where=attempt.job,
            fix="Run `tutelage hosted watch` until it has ended",
        )
    tables: list[str] = []
    metrics: dict[str, float] = {}
    for number, file_id in enumerate(job.get("result_files") or (), start=1):
        name = f"results-{number}.csv"
        content = run.api.content(str(file_id))
        atomic_write(run.journal.folder / name, content)
        tables.append(name)
        metrics |= last_values(content.decode(errors="replace"))
    return {
        "job": attempt.job,
        "tuned": attempt.tuned,
        "metrics": metrics,
        "tables": tables,
        "checkpoints": [_checkpoint(item) for item in run.api.checkpoints(str(attempt.job))],
        "hyperparameters": hyperparameters(job),
        "seed": job.get("seed"),
        "trained_tokens": job.get("trained_tokens"),
        "finished_at": job.get("finished_at"),
    }


def publish(run: HostedRun) -> str:
    """Make the tuned model callable and return the name to call it by."""
    attempt = run.record.attempt
    name = run.api.service.publish(run.api.client, str(attempt.tuned), run.pace)
    if run.record.callable_as != name:
        run.record.callable_as = name
        run.save()
    return name


def hyperparameters(job: Json) -> dict[str, Any]:
    """Return the hyperparameters that a job used, whichever form its service writes them in."""
    method = job.get("method") or {}
    inner = (method.get(method.get("type") or "supervised") or {}).get("hyperparameters")
    found = inner or job.get("hyperparameters") or {}
    return {name: value for name, value in found.items() if value is not None}


def last_values(table: str) -> dict[str, float]:
    """Return the last number in each column of a results table."""
    found: dict[str, float] = {}
    for row in csv.DictReader(io.StringIO(table.lstrip("\ufeff"))):
        for name, text in row.items():
            try:
                found[name] = float(text)
            except (TypeError, ValueError):
                continue
    return found


def _job_of(record: Record) -> str:
    if record.attempt.job is None:
        raise DataError(
            "the job was not started yet",
            where=record.short,
            fix="Run `tutelage hosted start` first",
        )
    return record.attempt.job


def _tell_event(run: HostedRun, event: Json, remaining: float | None) -> None:
    """Pass an event of the service on: a step with its loss as progress, the rest as a note."""
    message = str(event.get("message") or "")
    data = event.get("data") if isinstance(event.get("data"), dict) else {}
    step, steps = _position(data or {}, message)
    if event.get("type") != "metrics" or step is None:
        kind = "warning" if event.get("level") in ("warn", "error") else "note"
        run.emit(Event(STAGE, kind, message))  # type: ignore[arg-type]
        return
    attempt = run.record.attempt
    attempt.step, attempt.steps = step, steps or attempt.steps
    numbers = {name: float(v) for name, v in (data or {}).items() if isinstance(v, (int, float))}
    shown = {name: numbers[theirs] for name, theirs in _LOSSES.items() if theirs in numbers}
    if remaining is not None:
        shown["left_s"] = remaining
    total = attempt.steps or None
    run.emit(Event(STAGE, "metric", done=step, total=total, data=numbers))
    run.emit(Event(STAGE, "progress", attempt.job or "", done=step, total=total, data=shown))


def _position(data: Json, message: str) -> tuple[int | None, int | None]:
    """Return the step and the number of steps that an event is about, as far as it says."""
    said = _STEP.search(message)
    step = data.get("step", said[1] if said else None)
    steps = data.get("total_steps", said[2] if said else None)
    return _whole(step), _whole(steps)


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def left_s(job: Json) -> float | None:
    """Return the seconds that the service expects the job to need still, if it says."""
    at = job.get("estimated_finish")
    if not isinstance(at, (int, float)):
        return None
    return max(0.0, at - datetime.now(UTC).timestamp())


def _checkpoint(item: Json) -> dict[str, Any]:
    return {
        "model": item.get("fine_tuned_model_checkpoint"),
        "step": item.get("step_number"),
        "metrics": {k: v for k, v in (item.get("metrics") or {}).items() if v is not None},
    }
