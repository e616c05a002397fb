"""What users say and do, from the command line and Python: given, imported, shown, summed up.

Signals are read and kept as POST /v1/feedback does it, texts redacted first. What may be trained
on is decided in feedback/segment.py.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from tutelage.core.errors import DataError, nearest
from tutelage.core.events import Event
from tutelage.core.output import OutputFormat
from tutelage.data.split import load_split_key
from tutelage.feedback.cleaning import clean
from tutelage.feedback.deliveries import KEY, Given, keep_deliveries, read_file, retry_key
from tutelage.feedback.outcome import goodness, outcomes, score_of
from tutelage.feedback.privacy.late import sweep_late
from tutelage.feedback.signals import Declared, declare, read_feedback
from tutelage.feedback.traffic_signals import read_traffic
from tutelage.serving.access.usage_span import span
from tutelage.serving.records.record_texts import kept_name
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.privacy import log_redactor

STAGE = "feedback"
_AT_ONCE = 500  # deliveries a transaction
_SHOWN = 20  # bad lines that are told


def declared(ctx: Context) -> dict[str, Declared]:
    """Return the project's signals by name: the built-in ones and those of tutelage.yaml."""
    return declare(ctx.config.feedback)


def signals(ctx: Context) -> list[dict[str, Any]]:
    """Return what each signal means: direction (1, -1, 0), weight, kind, scale."""
    return [asdict(one) for one in declared(ctx).values()]


def texts(ctx: Context) -> tuple[str, ...]:
    """Return the signals that are text: what they say is no number, whatever it looks like."""
    return tuple(name for name, one in declared(ctx).items() if one.kind == "text")


def add(ctx: Context, body: Mapping[str, Any], author: str | None = None) -> dict[str, Any]:
    """Keep one delivery, as POST /v1/feedback takes it; it is durable when this returns.

    Raises DataError if something is wrong with it; then nothing of it was kept.
    """
    given = _Reading.of(ctx, author).read(body, "feedback")
    kept = keep_deliveries(ctx.store, [given])
    for place, problem in kept.refused:
        raise DataError(problem, where=place, fix="Use a new key for new content")
    _leave_out_forgotten(ctx)
    found = given.feedback
    return {
        "record_id": found.record,
        "kept": [row["kind"] for row in found.rows],
        "undeclared": {name: nearest(name, list(declared(ctx))) for name in found.undeclared},
        "known": kept.unknown == 0,
    }


def import_file(ctx: Context, path: Path, author: str | None = None) -> dict[str, Any]:
    """Keep every delivery of a .jsonl or .csv file; lines that are wrong are named and left out.

    What names no time is as old as the file, so that a file imported twice changes nothing.
    Raises DataError if no line could be used.
    """
    reading = _Reading.of(ctx, author)
    made = _made(path)
    total: Counter[str] = Counter()
    undeclared: Counter[str] = Counter()
    bad: list[dict[str, Any]] = []
    lines = read_file(path, texts(ctx))
    while part := list(islice(lines, _AT_ONCE)):
        batch = []
        for number, body in part:
            try:
                if isinstance(body, str):
                    raise DataError(body)
                given = reading.read({"at": made, **body}, f"line {number}")
            except DataError as error:
                bad.append({"line": number, "problem": error.sentence()})
                continue
            batch.append(given)
            undeclared.update(given.feedback.undeclared)
        kept = keep_deliveries(ctx.store, batch)
        bad += [{"line": int(place.split()[-1]), "problem": why} for place, why in kept.refused]
        total.update(
            lines=len(part), deliveries=kept.deliveries, signals=kept.signals,
            repeated=kept.repeated, unknown=kept.unknown,
        )  # fmt: skip
        if total["lines"] > _AT_ONCE:
            ctx.emit(Event(STAGE, "progress", "import", done=total["lines"]))
    _leave_out_forgotten(ctx)
    if bad and not total["deliveries"]:
        first = min(bad, key=lambda one: int(one["line"]))
        raise DataError(
            f"none of the {len(bad):,} lines can be used; first: {first['problem']}",
            where=f"{path}:{first['line']}",
            fix='A line looks like {"record_id": "...", "rating": 1}',
        )
    if not total["lines"]:
        raise DataError("the file is empty", where=str(path), fix="Bring one delivery a line")
    counts = {name: total[name] for name in ("deliveries", "signals", "repeated", "unknown")}
    return {**counts, "undeclared": dict(undeclared), "wrong": len(bad), "first": bad[:_SHOWN]}


def _leave_out_forgotten(ctx: Context) -> None:
    """Delete what was just said of erased answers, as a gateway does: there may be none."""
    sweep_late(ctx.store, load_split_key(ctx.workspace))


def _made(path: Path) -> str | None:
    """Return when the file was written, ISO 8601, or None if there is none."""
    with contextlib.suppress(OSError):
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
    return None


@dataclass(frozen=True)
class _Reading:
    """How a project reads deliveries of one sender."""

    names: Mapping[str, Declared]
    output: OutputFormat
    redactor: Callable[[str], str]
    split_key: bytes
    author: str | None

    @classmethod
    def of(cls, ctx: Context, author: str | None) -> _Reading:
        redactor, key = log_redactor(ctx), load_split_key(ctx.workspace)
        who = kept_name(author, redactor, key) if author else None
        return cls(declared(ctx), ctx.config.output.format(), redactor, key, who)

    def read(self, body: Mapping[str, Any], place: str) -> Given:
        """Return the checked delivery; raise DataError naming what is wrong."""
        tidy = clean(body, self.redactor, self.split_key)
        key = tidy.pop(KEY, None)
        if key is not None and not (isinstance(key, str) and key):
            raise DataError(f"{KEY!r} is {key!r}", fix="Send text, or leave it out")
        found = read_feedback(tidy, self.output, self.author, self.names)
        return Given(place, found, retry_key(self.author, key) if key else None)


def show(ctx: Context, record: str) -> dict[str, Any]:
    """Return one record with its texts, its signals and its score; raise DataError if unknown."""
    with ctx.store.session() as session:
        row = session.get(RecordRow, record)
        said = list(
            session.scalars(
                select(SignalRow).where(SignalRow.record == record).order_by(SignalRow.at)
            )
        )
    if row is None and not said:
        raise DataError(
            "there is neither a record nor feedback of that id",
            where=record,
            fix="`tutelage feedback list` shows what came last",
        )
    return {
        "record": record,
        "release": row.release if row else None,
        "side": row.split if row else None,
        "messages": row.messages if row else [],
        "response": row.response if row else None,
        "score": score_of(said, declared(ctx), answer=row.response if row else None),
        "signals": [_view(one) for one in said],
    }


def recent(
    ctx: Context, *, kind: str | None = None, since: str | None = None, limit: int = 20
) -> list[dict[str, Any]]:
    """Return the signals that came last, the newest first."""
    begin, end = span(since, None)
    query = select(SignalRow).where(SignalRow.at >= begin, SignalRow.at <= end)
    if kind is not None:
        query = query.where(SignalRow.kind == kind)
    query = query.order_by(SignalRow.at.desc(), SignalRow.key).limit(limit)
    with ctx.store.session() as session:
        return [_view(row) for row in session.scalars(query)]


def _view(row: SignalRow) -> dict[str, Any]:
    return {
        "record": row.record,
        "signal": row.kind,
        "value": row.value["value"],
        "author": row.author,
        "at": row.at,
    }


def summary(ctx: Context, *, since: str | None = None, until: str | None = None) -> dict[str, Any]:
    """Return how often each signal came and what it says, and the mean score by release.

    Times are those of the signals and of the records; scores are 0 (bad) to 1 (good).
    """
    begin, end = span(since, until)
    names = declared(ctx)
    scores = outcomes(ctx.store, names, since=begin, until=end)
    by_release: dict[str, list[float]] = {}
    for record, release in _releases(ctx, begin, end):
        if record in scores:
            by_release.setdefault(release, []).append(scores[record])
    with ctx.store.session() as session:
        within = select(func.count()).select_from(RecordRow)
        records = session.scalar(within.where(RecordRow.at >= begin, RecordRow.at < end)) or 0
    return {
        "since": begin,
        "until": end,
        "records": records,
        "scored": len(scores),
        "score": _mean(list(scores.values())),
        "signals": _by_signal(ctx, begin, end, names),
        "releases": [
            {"release": name, "scored": len(values), "score": _mean(values)}
            for name, values in sorted(by_release.items())
        ],
    }


def _by_signal(
    ctx: Context, begin: datetime, end: datetime, names: Mapping[str, Declared]
) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    good: dict[str, list[float]] = {}
    query = select(SignalRow.kind, SignalRow.value)
    query = query.where(SignalRow.at >= begin, SignalRow.at <= end)
    with ctx.store.session() as session:
        for kind, value in session.execute(query.execution_options(yield_per=5_000)):
            counts[kind] += 1
            rule = names.get(kind)
            if rule is not None and rule.name != "edit":
                says = goodness(value["value"], rule)
                if says is not None:
                    good.setdefault(kind, []).append(says)
    return [
        {"signal": kind, "count": count, "score": _mean(good.get(kind, [])),
         "declared": kind in names}
        for kind, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]  # fmt: skip


def _releases(ctx: Context, begin: datetime, end: datetime) -> Iterator[tuple[str, str]]:
    """Yield the id and the release's name of the records that somebody said something of."""
    told = select(SignalRow.record)
    query = select(RecordRow.id, RecordRow.release).where(
        RecordRow.at >= begin, RecordRow.at < end, RecordRow.id.in_(told)
    )
    with ctx.store.session() as session:
        names = dict(session.execute(select(ReleaseRow.id, ReleaseRow.name)).tuples().all())
        for record, release in session.execute(query.execution_options(yield_per=5_000)):
            yield record, names.get(release, release)


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def traffic(ctx: Context, *, everything: bool = False) -> dict[str, int]:
    """Read signals from the order of requests now; the gateway does so by itself."""
    return asdict(read_traffic(ctx.store, ctx.config.feedback, everything=everything))
