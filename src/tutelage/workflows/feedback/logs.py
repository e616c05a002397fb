"""Logs of other tools into the project's records, or into a file to tune on; records to look at.

An imported call is a record like those of the gateway: redacted as `deploy.redact` says, on the
side that the keyed hash gives it, with its feedback. Importing the same file again adds nothing,
also of what was erased since.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.events import Emit, silent
from tutelage.core.example import Example, Message
from tutelage.data.readers.base import Rejected, nothing_usable
from tutelage.data.readers.files import reader_for
from tutelage.data.readers.shape import Shaper, known_format
from tutelage.data.split import load_split_key, private_name
from tutelage.data.writers.files import json_line, replacing
from tutelage.feedback.log_formats.calls import CallShaper, bare, facts_of
from tutelage.feedback.log_formats.facts import Names
from tutelage.feedback.log_formats.records import Intake
from tutelage.feedback.privacy.again import Erased
from tutelage.feedback.signals import OWN_FIELDS, declare
from tutelage.serving.records.log_policy import keeps_texts
from tutelage.store.base import Store, insert_into
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.files import (
    Importing,
    Reading,
    default_name,
    rejected_path,
    require_encoding,
)
from tutelage.workflows.data.privacy import log_redactor

_GROUP = 1000  # calls a transaction


@dataclass(frozen=True)
class LogReading(Reading):
    """How logs are read: as rows of a data set are, and with the fields beside them."""

    names: Names = field(default_factory=Names)
    loose: bool = True  # the project's columns are taken where a file has them

    def with_columns(self, input: str | None, output: str | None) -> LogReading:
        """Return the same with other columns named; a file must have those."""
        named = super().with_columns(input, output)
        return replace(self, columns=named.columns, loose=self.loose and input is None)

    def shaper(self, path: Path | None = None) -> Shaper:
        """Return the reader of calls."""
        if path is not None and getattr(reader_for(path), "raw_text", False):
            raise DataError("this is a document, not a log", where=str(path), fix="Name a log")
        return CallShaper(
            self.columns, self.output, self.task, self.names, format=self.format, loose=self.loose
        )


@dataclass(frozen=True)
class LogsImported:
    """What an import gave. `known` calls were there before; `first_feedback` says what was wrong.

    `records` counts new ones, `sides` by side; `signals` the feedback that was read.
    """

    records: int
    known: int
    signals: int
    sides: dict[str, int]
    rejected: int
    skipped: int
    rejected_file: str | None
    first: str | None
    feedback_problems: int
    first_feedback: str | None
    detected: list[str]
    too_old: int = 0  # calls from before `deploy.log_days`, which were not kept
    forgotten: int = 0  # calls of users from before they were forgotten, which were not kept

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON."""
        return asdict(self)


def log_reading(
    ctx: Context | None,
    format: str = "auto",
    encoding: str | None = None,
    *,
    names: Names | None = None,
) -> LogReading:
    """Return how logs are read: with a project, its columns, output and signals count.

    Without one times say nothing, and no row is left out for its time.
    """
    known_format(format)
    require_encoding(encoding)
    names = names or Names()
    if names.scale is not None and names.scale <= 1:
        raise ConfigError(f"a scale of 1 to {names.scale:g} has no room", fix="Give 5 or 10")
    if ctx is None:
        return LogReading(format, encoding, documents=False, names=replace(names, timed=False))
    config = ctx.config
    group = config.data.splits.group or config.data.columns.group
    declared = {n: one for n, one in declare(config.feedback).items() if n not in OWN_FIELDS}
    texts = tuple(n for n, one in declared.items() if one.kind == "text")
    return LogReading(
        format,
        encoding,
        config.data.columns.model_copy(update={"group": None, "time": None}),
        config.output.format(),
        documents=False,
        names=replace(names, own_group=group, signals=tuple(declared), texts=texts),
    )


def import_logs(
    ctx: Context, sources: Sequence[str], reading: LogReading | None = None
) -> LogsImported:
    """Keep the calls of `sources` (files or folders) as records of the project.

    Rows that can't be used go to .tutelage/imports/NAME.rejected.jsonl with place and reason.
    Raises DataError if no row can be used, ConfigError where `deploy.log` keeps no texts.
    """
    if ctx.config.deploy.log == "none":
        raise ConfigError(
            "deploy.log is none, so nothing of a log would be kept",
            where=str(ctx.workspace.config_path),
            fix="Set it to all or sampled",
        )
    redact = log_redactor(ctx)

    def conceal(row: Rejected) -> Rejected:
        return replace(row, reason=redact(row.reason), raw=redact(row.raw), whole="")

    reading = reading or log_reading(ctx)
    job = Importing(reading, ctx.emit, conceal)
    into = _Records(ctx, redact)
    left = rejected_path(ctx.workspace, f"{default_name(sources)}-logs")
    with replacing(left) as path, path.open("w", encoding="utf-8", newline="\n") as job.left:
        into.keep(job.examples(sources), reading.names)
    if not job.first:
        left.unlink()
    if not job.rows:
        raise nothing_usable(
            job.first, job.rejected + job.skipped, job.detected, options=True
        )  # fmt: skip
    done = job.result(left, left)
    return LogsImported(
        into.new, into.known, into.signals, dict(into.sides), done.rejected, done.skipped,
        done.rejected_file, done.first, into.problems, into.first_problem, done.detected,
        into.too_old, into.forgotten,
    )  # fmt: skip


def _require_named(names: Names) -> None:
    """Raise DataError if none of the rows read so far has a field that the user named."""
    for name, seen in names.seen.items():
        if not seen:
            raise DataError(f"no row has a field {name!r}", fix="Look at the file's first line")


class _Records:
    """Writes calls to the store, a thousand a transaction, and counts."""

    def __init__(self, ctx: Context, redact: Callable[[str], str]) -> None:
        self.new = self.known = self.signals = self.problems = 0
        self.too_old = self.forgotten = 0
        self.first_problem: str | None = None
        self.sides: Counter[str] = Counter()
        self._store: Store = ctx.store
        self._deploy = ctx.config.deploy
        days = self._deploy.log_days
        self._oldest = None if days is None else utc_now() - timedelta(days=days)
        self._intake = Intake(
            ctx.config.name,
            load_split_key(ctx.workspace),
            ctx.config.data.splits,
            redact,
            ctx.config.output.format(),
            declare(ctx.config.feedback),
        )

    def keep(self, calls: Iterable[Example], names: Names) -> None:
        """Write every call and the feedback on it; nothing if no row has a field of `names`."""
        left = iter(calls)
        while group := list(islice(left, _GROUP)):
            _require_named(names)
            self._keep_some(group)

    def _keep_some(self, calls: Sequence[Example]) -> None:
        records: dict[str, dict[str, Any]] = {}
        signals: dict[str, dict[str, Any]] = {}
        read = [(call, *self._intake.rows(call)) for call in calls]
        kept = len(read)
        with self._store.begin() as session:
            erased = Erased(session, self._intake.split_key, (row["id"] for _, row, _, _ in read))
            for call, row, given, problem in read:
                if self._is_left_out(call, row, erased):
                    kept -= 1
                    continue
                records.setdefault(row["id"], self._as_kept(row))
                signals |= {one["key"]: one for one in given}
                if problem:
                    self.problems += 1
                    self.first_problem = self.first_problem or f"{call.origin.source}: {problem}"
            asked = select(RecordRow.id).where(RecordRow.id.in_(list(records)))
            there = set(session.scalars(asked))
            fresh = [row for name, row in records.items() if name not in there]
            if fresh:
                session.execute(insert_into(self._store.engine, RecordRow.__table__), fresh)
            if signals:
                _take_back(session, list(signals.values()))
                insert = insert_into(self._store.engine, SignalRow.__table__)
                nothing = insert.on_conflict_do_nothing(index_elements=["key"])
                session.execute(nothing, list(signals.values()))
        self.new += len(fresh)
        self.known += kept - len(fresh)
        self.signals += len(signals)
        self.sides.update(row["split"] for row in fresh)

    def _is_left_out(self, call: Example, row: Mapping[str, Any], erased: Erased) -> bool:
        """Return whether a call is too old, or of a user who was forgotten, and count it."""
        if self._oldest is not None and row["at"] < self._oldest:
            self.too_old += 1
            return True
        facts = facts_of(call)
        if erased.holds(row["id"], (facts.user, row["user"], facts.group), facts.at):
            self.forgotten += 1
            return True
        return False

    def _as_kept(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the record without texts where `deploy.log` keeps none of it."""
        digest = hashlib.sha256(row["id"].encode()).hexdigest()
        if keeps_texts(self._deploy, digest):
            return row
        user = row["user"]
        hashed = private_name(self._intake.split_key, user) if user else user
        return {**row, "messages": [], "response": "", "error": None, "user": hashed}


def _take_back(session: Session, read: Sequence[Mapping[str, Any]]) -> None:
    """Delete what an earlier reading of the log made of these signals: on another scale, say."""
    keys: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for one in read:
        keys[one["record"], one["kind"], one["author"], one["at"]].add(one["key"])
    there = select(
        SignalRow.record, SignalRow.kind, SignalRow.author, SignalRow.at, SignalRow.key
    ).where(SignalRow.record.in_({one["record"] for one in read}))
    stale = [key for *place, key in session.execute(there) if key not in keys.get((*place,), {key})]
    session.execute(delete(SignalRow).where(SignalRow.key.in_(stale)))


def convert_logs(
    sources: Sequence[str],
    output: Path,
    reading: LogReading | None = None,
    *,
    min_rating: float | None = None,
    force: bool = False,
    emit: Emit = silent,
) -> dict[str, Any]:
    """Write logs as JSON lines to tune on: {output, rows, edited, left_out, empty, first...}.

    A corrected answer takes the place of the one that was given. With `min_rating` (0..1), calls
    that are neither corrected nor rated so high are left out. Needs no project.
    """
    if output.exists() and not force:
        raise DataError(
            "the file is there already",
            where=str(output),
            fix="Name another one, or replace it with --force",
        )
    for source in sources:
        if output.resolve().is_relative_to(Path(source).resolve()):
            raise DataError(
                "the file would take the place of a log, or be read as one the next time",
                where=str(output),
                fix=f"Name a file outside {source}",
            )
    job = Importing(reading or log_reading(None), emit)
    job.left = io.StringIO()
    counts: Counter[str] = Counter()
    with replacing(output) as path:
        with path.open("w", encoding="utf-8", newline="\n") as stream:
            for row in _tuning_rows(job.examples(sources), min_rating, counts):
                stream.write(json_line(row))
        if not counts["rows"]:
            path.unlink()
    if not counts["rows"]:
        if counts["left_out"]:
            raise DataError(
                f"none of the {counts['left_out']:,} calls is corrected or rated high enough",
                fix="Lower --min-rating, or leave it away",
            )
        if counts["empty"]:
            raise DataError(
                f"none of the {counts['empty']:,} calls has both a question and an answer",
                fix="Name the columns with --input and --answer",
            )
        raise nothing_usable(
            job.first, job.rejected + job.skipped, job.detected, options=True
        )  # fmt: skip
    first = job.first if job.first and job.first.is_error else None
    return {
        "output": str(output),
        **{name: counts[name] for name in ("rows", "edited", "left_out", "empty")},
        "rejected": job.rejected,
        "skipped": job.skipped,
        "first": f"{first.source}: {first.reason}" if first else None,
        "detected": job.detected,
    }


def _tuning_rows(
    calls: Iterable[Example], min_rating: float | None, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    from tutelage.data.writers.rows import openai_row

    for call in calls:
        feedback = facts_of(call).feedback
        edit = next((str(one["edit"]) for one in feedback if one.get("edit")), None)
        ratings = [one["rating"] for one in feedback if "rating" in one]
        if _is_empty(call, edit):
            counts["empty"] += 1
            continue
        if edit is not None:
            turns = (*call.context, Message(role="assistant", content=edit))
            call = call.model_copy(update={"messages": turns, "label": None})
            counts["edited"] += 1
        elif min_rating is not None and not any(_value(r, call) >= min_rating for r in ratings):
            counts["left_out"] += 1
            continue
        counts["rows"] += 1
        yield openai_row(bare(call), bare=True)


def _is_empty(call: Example, edit: str | None) -> bool:
    """Return whether nothing was asked, or neither answered nor corrected: no row to learn from."""
    return not any(map(_says, call.context)) or not (edit or _says(call.messages[-1]))


def _says(turn: Message) -> bool:
    return bool(turn.content.strip()) or any((turn.model_extra or {}).values())


def _value(rating: Any, call: Example) -> float:
    if isinstance(rating, str):
        return 1.0 if rating in ("up", "good") else 0.0
    if not 0 <= rating <= 1:
        raise DataError(
            f"a rating is {rating:g}, and ratings go from 0 (bad) to 1 (good)",
            where=call.origin.source,
            fix="For ratings from 1 to 5 add --rating-scale 5",
        )
    return float(rating)
