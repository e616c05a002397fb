"""The hosted jobs of a project: watched, looked at, cancelled, fetched, kept alive, listed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tutelage.core.artifact import Artifact, utc_now
from tutelage.core.errors import Conflict, DataError
from tutelage.training.hosted import keepalive as pinging
from tutelage.training.hosted import steps
from tutelage.training.hosted.base import Pace
from tutelage.training.hosted.journal import Record, folder_of, records
from tutelage.training.hosted.steps import KEY, HostedRun
from tutelage.workflows.context import Context
from tutelage.workflows.training import hosted
from tutelage.workflows.training.hosted_settings import hosted_settings


class HostedDesk:
    """What `tutelage hosted` does, from Python. Jobs are named by the start of their name or id.

    Without a name the newest job is meant.
    """

    def __init__(self, context: Context, pace: Pace | None = None) -> None:
        self._ctx = context
        self._pace = pace or Pace()

    def plan(self, dataset: Artifact) -> dict[str, Any]:
        """Return what would be uploaded and what it would cost; nothing is sent.

        Raises DataError for rows that may not leave.
        """
        prepared = hosted.prepare(self._ctx, dataset)
        hosted.forbid_identifiers(self._ctx, prepared)
        return prepared.as_dict()

    def start(self, dataset: Artifact, *, yes: bool = False, again: bool = False) -> dict[str, Any]:
        """Upload the rows and start the job, once however often it is called; don't wait."""
        run = hosted.start(self._ctx, dataset, yes=yes, again=again, pace=self._pace)
        return run.record.as_dict()

    def watch(self, name: str | None = None) -> dict[str, Any]:
        """Follow a job to its end, with its events.

        Raises ModelError if it failed, Conflict if it was cancelled.
        """
        run = self._run(name)
        with run.journal.locked():
            steps.follow(run)
        return run.record.as_dict()

    def status(self, name: str | None = None) -> dict[str, Any]:
        """Ask the service once how a job stands; works while another command watches it."""
        run = self._run(name)
        attempt = run.record.attempt
        if attempt.job is not None:
            job = run.api.job(attempt.job)
            attempt.status = str(job.get("status") or "running").lower()
            attempt.tuned = job.get("fine_tuned_model") or attempt.tuned
            attempt.problem = (job.get("error") or {}).get("message")
            return {**run.record.as_dict(), "left_s": steps.left_s(job)}
        return {**run.record.as_dict(), "left_s": None}

    def cancel(self, name: str | None = None) -> dict[str, Any]:
        """Cancel a job; one that has ended stays as it is."""
        run = self._run(name)
        run.record.attempt.status = steps.cancel(run)
        try:
            with run.journal.locked():
                run.save()
        except Conflict:
            pass  # the command that watches it sees it at its next look
        return run.record.as_dict()

    def fetch(self, name: str | None = None) -> Artifact:
        """Fetch the tuned model's name and figures, deploying it where that is needed."""
        return hosted.fetch(self._ctx, self._record(name), self._pace)

    def keepalive(
        self, name: str | None = None, *, every: str | None = None, now: datetime | None = None
    ) -> dict[str, Any]:
        """Call the tuned model once if a call is due, and say when the next one is.

        `every` (such as 7d) is kept; without one, and none in hosted.keep_alive, a call is always
        due. Raises ModelError if the model is gone.
        """
        run = self._run(name)
        now = now or utc_now()
        folder, pings = self._pings(run.record, every)
        called = pings.is_due(now)
        if called:
            pings = pinging.ping(run.api, folder, pings, now)
        else:
            pinging.remember(folder, pings)
        return {"name": run.record.short, "called": called, **pings.as_dict(now)}

    def due(self, now: datetime | None = None) -> list[str]:
        """Return the names of the jobs whose models are to be called now, for a schedule."""
        now = now or utc_now()
        return [record.short for record, pings in self._kept() if pings.is_due(now)]

    def pings(self, now: datetime | None = None) -> list[dict[str, Any]]:
        """Return what is known of the calls of each model that has an interval."""
        now = now or utc_now()
        return [
            {"name": record.short, "base_url": record.base_url, **pings.as_dict(now)}
            for record, pings in self._kept()
        ]

    def jobs(self) -> list[dict[str, Any]]:
        """Return the jobs of this project as they were last seen, the newest first."""
        return [record.as_dict() for record in records(self._ctx.workspace.runs)]

    def all_jobs(self) -> list[dict[str, Any]]:
        """Return the jobs of the account at the service, the newest first, and which are ours."""
        settings = hosted_settings(self._ctx)
        api = hosted.open_api(settings, self._ctx.config.name, self._pace)
        known = {
            attempt.job: record.short
            for record in records(self._ctx.workspace.runs)
            for attempt in record.attempts
        }
        return [
            {
                "job": job.get("id"),
                "name": known.get(job.get("id")),
                "status": job.get("status"),
                "model": job.get("model"),
                "tuned": job.get("fine_tuned_model"),
                "key": (job.get("metadata") or {}).get(KEY),
                "created_at": _moment(job.get("created_at")),
            }
            for job in api.jobs()
        ]

    def _kept(self) -> Iterator[tuple[Record, pinging.Pings]]:
        """Yield each job whose model is kept alive."""
        for record in records(self._ctx.workspace.runs):
            if record.callable_as is not None:
                _, pings = self._pings(record, None)
                if pings.every is not None:
                    yield record, pings

    def _pings(self, record: Record, every: str | None) -> tuple[Path, pinging.Pings]:
        if record.callable_as is None:
            raise DataError(
                "there is no tuned model to call yet",
                where=record.short,
                fix="Run `tutelage hosted watch`, then `tutelage hosted fetch`",
            )
        folder = folder_of(self._ctx.workspace.runs, record.fingerprint)
        pings = pinging.load_pings(folder, record.callable_as)
        settings = self._ctx.config.hosted
        wanted = every or pings.every or (settings.keep_alive if settings else None)
        if wanted is not None:
            pinging.interval(wanted)
        return folder, pinging.replace_interval(pings, wanted)

    def _run(self, name: str | None) -> HostedRun:
        return hosted.open_run(self._ctx, self._record(name), self._pace)

    def _record(self, name: str | None) -> Record:
        """Return the job that `name` means, the newest without one."""
        known = records(self._ctx.workspace.runs)
        if not known:
            raise DataError(
                "this project has no hosted job yet",
                where=str(self._ctx.workspace.root),
                fix="Run `tutelage hosted start` first",
            )
        if name is None:
            return known[0]
        found = [r for r in known if r.fingerprint.startswith(name) or r.attempt.job == name]
        if len(found) != 1:
            raise DataError(
                f"{name!r} names {'several jobs' if found else 'no job'} of this project",
                fix=f"Known: {', '.join(record.short for record in known[:6])}",
            )
        return found[0]


def _moment(seconds: Any) -> str | None:
    if not isinstance(seconds, (int, float)):
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
