"""Drift of a deployment's traffic: compare now, watch for good, accept what is normal now.

The watch reads every record once, in order, and keeps its evidence in the store after each part,
so that a killed look goes on where it was. What it means for training is decided elsewhere.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import utc_now
from tutelage.core.durations import seconds
from tutelage.core.errors import DataError
from tutelage.core.events import Event
from tutelage.feedback.drift.check import CheckSettings, check
from tutelage.feedback.drift.report import DriftReport, forgotten
from tutelage.feedback.drift.sample import Row, Sample
from tutelage.store.drift import DriftReferenceRow, DriftReportRow
from tutelage.workflows.context import Context
from tutelage.workflows.feedback import drift_read as read
from tutelage.workflows.feedback.drift_kept import (
    accepted,
    keep_report,
    reference_view,
    report_view,
)
from tutelage.workflows.feedback.drift_space import embedding
from tutelage.workflows.feedback.drift_watch import alarm_since, begin_anew

AGAINST = ("auto", "training", "golden", "accepted", "before")
_STAGE = "drift"
_BEFORE = 10_000  # requests before the recent ones, where those are compared with


def check_traffic(
    ctx: Context,
    *,
    deployment: str | None = None,
    against: str | None = None,
    last: int | None = None,
    since: str | datetime | None = None,
    now: datetime | None = None,
    keep: bool = True,
) -> DriftReport:
    """Compare recent requests with a reference, once; the report is kept unless told otherwise.

    Recent are the `last` requests (1,000), or those `since` a time or a length of time such as 7d.
    `against` is auto (the traffic accepted last, else the dataset), training, golden (its test
    rows), accepted, or before (the requests before the recent ones). Raises DataError if that is
    not there.
    """
    name = read.deployment_of(ctx, deployment)
    now = now or utc_now()
    start = _start(ctx, name, last, since, now)
    if start is None:
        return DriftReport(False, "No request was logged yet", "too_few")
    settings = ctx.config.drift
    ctx.emit(Event(_STAGE, "start", "reading the requests"))
    recent = Sample.of(read.rows(ctx, name, start, now), texts=settings.texts, seed=settings.seed)
    reference, told, word = _reference(ctx, name, against or settings.against, start)
    ctx.emit(Event(_STAGE, "note", f"comparing {len(recent):,} requests with {told}"))
    found = check(reference, recent, settings=_settings(ctx, len(recent) + len(reference), word))
    what = f"the {len(recent):,} requests since {start:%Y-%m-%d %H:%M} UTC"
    found = replace(found, reference=told, recent=what)
    if keep and found.verdict != "too_few":
        keep_report(ctx, name, found, "check", now)
    return found


def accept(
    ctx: Context,
    *,
    deployment: str | None = None,
    since: str | datetime | None = None,
    until: datetime | None = None,
    note: str = "",
    author: str | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Make recent traffic the normal one; the watch begins anew from it, and its alarm ends.

    Unset, `since` is where the alarm that stands began, else 30 days ago, and `until` is now. What
    came after `until` is looked at again. Raises DataError if fewer than 50 requests are there.
    """
    name = read.deployment_of(ctx, deployment)
    now = now or utc_now()
    begun = alarm_since(ctx, name) if since is None else None
    start = begun or _moment(since or "30d", now)
    end = until or now
    rows = read.count(ctx, name, start, end)
    if rows < 50:
        raise DataError(
            f"only {rows:,} requests since {start:%Y-%m-%d %H:%M} UTC can be accepted, it takes 50",
            where=name,
            fix="Wait for more, or give --since a longer time",
        )
    row = DriftReferenceRow(
        deployment=name, since=start, until=end, rows=rows, note=note,
        author=author or getpass.getuser(), at=now,
    )  # fmt: skip
    with ctx.store.begin() as session:
        session.add(row)
        session.flush()
        begin_anew(session, name, f"{rows:,} requests are the normal ones now", now)
    return reference_view(row)


def history(
    ctx: Context, *, deployment: str | None = None, limit: int = 20
) -> list[dict[str, Any]]:
    """Return the reports and alarms that were kept, newest first."""
    query = select(DriftReportRow).order_by(DriftReportRow.at.desc()).limit(limit)
    if deployment is not None:
        query = query.where(DriftReportRow.deployment == read.deployment_of(ctx, deployment))
    with ctx.store.session() as session:
        return [report_view(row) for row in session.scalars(query)]


def show(ctx: Context, report: str | None = None) -> dict[str, Any]:
    """Return a kept report with its examples' texts; unset, the newest. Raises DataError."""
    with ctx.store.session() as session:
        query = select(DriftReportRow).order_by(DriftReportRow.at.desc())
        if report is not None:
            query = query.where(DriftReportRow.id.startswith(report))
        row = session.scalars(query.limit(1)).first()
    if row is None:
        what = f"there is no report {report!r}" if report else "no report was kept yet"
        raise DataError(
            what, fix="`tutelage drift history` lists them, `tutelage drift check` makes one"
        )
    found = report_view(row) | {"report": row.report}
    ids = [e["record"] for part in row.report["parts"] for e in part["examples"]]
    texts = read.texts_of(ctx, ids)
    for part in row.report["parts"]:
        for example in part["examples"]:
            example["text"] = texts.get(example["record"], "")
    return found


def forget_words(ctx: Context, deployment: str | None = None) -> int:
    """Take everything that people wrote out of kept reports; return how many were changed.

    What a report says of topics may hold words of a person whose records are deleted.
    """
    with ctx.store.begin() as session:
        query = select(DriftReportRow)
        if deployment is not None:
            query = query.where(DriftReportRow.deployment == deployment)
        changed = 0
        for row in session.scalars(query):
            plain = forgotten(row.report)
            if plain != row.report:
                row.report, row.sentence = plain, plain["sentence"]
                changed += 1
    return changed


def _settings(ctx: Context, texts: int, against: str) -> CheckSettings:
    drift = ctx.config.drift
    return CheckSettings(
        drift.level, drift.notable, drift.seed, embedding(ctx, min(texts, 2 * drift.texts)), against
    )


def _reference(
    ctx: Context, deployment: str, against: str, start: datetime
) -> tuple[Sample, str, str]:
    """Return the sample to compare with, its name, and how sentences call it."""
    if against not in AGAINST:
        raise DataError(f"{against!r} is nothing to compare with", fix=f"Use {', '.join(AGAINST)}")
    row = accepted(ctx, deployment)
    drift = ctx.config.drift
    if against == "accepted" or (against == "auto" and row is not None):
        if row is None:
            raise DataError(
                "no traffic was accepted as normal yet", fix="Run `tutelage drift accept`"
            )
        found = read.rows(ctx, deployment, row.since, row.until)
        told = f"the traffic accepted on {row.at:%Y-%m-%d}"
        return Sample.of(found, texts=drift.texts, seed=drift.seed), told, "in accepted traffic"
    if against == "before":
        begun = read.newest_place(ctx, deployment, _BEFORE, start) or start
        found = read.rows(ctx, deployment, begun, start)
        return Sample.of(found, texts=drift.texts, seed=drift.seed), "the requests before", "before"
    dataset = read.dataset_of(ctx, deployment)
    if dataset is None:
        raise DataError(
            "there is no dataset to compare with",
            fix="Run `tutelage data split`, or compare with --against before",
        )
    examples = read.dataset_rows(ctx, dataset, golden=against == "golden")
    labelled = (
        Row(f"{read.ROW}{e.id}", e.input_text, e.answer, e.label, segments=_label(e.label))
        for e in examples
    )
    kind = "test rows" if against == "golden" else "rows"
    told = f"the {len(examples):,} {kind} of dataset {dataset.short}"
    sample = Sample.of(labelled, texts=drift.texts, seed=drift.seed)
    return sample, told, f"in the {kind}"


def _label(label: str | None) -> Mapping[str, str]:
    return {"label": label} if label is not None else {}


def _start(
    ctx: Context, deployment: str, last: int | None, since: str | datetime | None, now: datetime
) -> datetime | None:
    if last is not None and since is not None:
        raise DataError("a number of requests and a time were both given", fix="Give one of them")
    if since is not None:
        return _moment(since, now)
    if last is not None and last < 1:
        raise DataError(f"{last} is no number of requests", fix="Give 50 or more")
    return read.newest_place(ctx, deployment, last or 1_000, now)


def _moment(given: str | datetime, now: datetime) -> datetime:
    """Return a point in time from itself, from ISO 8601, or from a length of time before now."""
    if isinstance(given, datetime):
        return given if given.tzinfo else given.replace(tzinfo=UTC)
    try:
        return now - timedelta(seconds=seconds(given))
    except (ValueError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        raise DataError(
            f"{given!r} is no time", fix="Write 24h, 7d, 2026-03-01 or 2026-03-01T12:00"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
