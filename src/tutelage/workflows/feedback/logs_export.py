"""Records out: with all that is known of them, as chats, or as rows to tune on; and as they come.

What goes out to be tuned on is held to the same rule as training here: the train side alone, no
twin of a held-out row, and only answers that a person corrected or that users were content with.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import func, select

from tutelage.core.errors import ConfigError, DataError, did_you_mean
from tutelage.core.example import SPLITS
from tutelage.data.writers.files import write_csv, write_jsonl
from tutelage.feedback.log_formats.records import chat_line, record_line
from tutelage.feedback.outcome import score_of
from tutelage.feedback.segment_twins import HeldOut, Twin, find_twins, held_out_inputs
from tutelage.feedback.signals import Declared, declare
from tutelage.release.bundle import get_release
from tutelage.serving.access.usage_span import span
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_rows import newest_version
from tutelage.workflows.feedback.segment import hold_apart

Form = Literal["jsonl", "csv", "openai", "tuning"]
FORMATS: tuple[Form, ...] = ("jsonl", "csv", "openai", "tuning")
_ENDINGS: dict[str, Form] = {".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl"}
_GOOD = 0.75  # a score from which on an answer is worth learning as it is
_AT_ONCE = 1000  # records held at once
_EVERY_S = 1.0  # between two looks for new records


@dataclass(frozen=True)
class Chosen:
    """Which records: of a span of time (7d, or days), a release, a side; failed ones alone.

    `shadow` ones are copies of requests that another release answered.
    """

    since: str | None = None
    until: str | None = None
    release: str | None = None
    side: str | None = None
    failed: bool = False
    shadow: bool = False


@dataclass(frozen=True)
class LogsExported:
    """What was written. `left_out` says why records were not, with how many."""

    output: str
    format: str
    rows: int
    edited: int
    left_out: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON."""
        return asdict(self)


def export_logs(
    ctx: Context,
    output: Path,
    *,
    format: str | None = None,
    chosen: Chosen | None = None,
    min_score: float = _GOOD,
    prompt: bool = False,
    force: bool = False,
) -> LogsExported:
    """Write records to `output`: jsonl and csv with everything, openai as chats, tuning to learn.

    tuning takes the train side alone: corrected answers, and those whose score is `min_score`
    or more. `prompt` puts the project's prompt before chats without one. Raises DataError if
    nothing is left, or if rows of another side were asked for to tune on.
    """
    form, chosen = _form(output, format), chosen or Chosen()
    if output.exists() and not force:
        raise DataError(
            "the file is there already",
            where=str(output),
            fix="Name another one, or replace it with --force",
        )
    _require_side(chosen, form)
    if form == "tuning":
        hold_apart(ctx)
    work = _Export(ctx, chosen, min_score, ctx.config.prompt if prompt else "")
    rows = work.tuning if form == "tuning" else work.chats if form == "openai" else work.lines
    if next(rows(), None) is None:
        told = "; ".join(f"{count:,} {why}" for why, count in work.left_out.items())
        raise DataError(
            "there is no such record" + (f" to write ({told})" if told else ""),
            where=str(ctx.workspace.root),
            fix="Widen --since, or import logs: `tutelage logs import FILE`",
        )
    work.reset()
    count = write_csv(output, rows) if form == "csv" else write_jsonl(output, rows())
    if form == "csv":
        work.edited //= 2  # the rows were asked for twice
    return LogsExported(str(output), form, count, work.edited, dict(work.left_out))


def _form(output: Path, named: str | None) -> Form:
    found = next((form for form in FORMATS if form == named), None)
    if found is None and named is None:
        found = _ENDINGS.get(output.suffix.lower())
    if found is None:
        hint = did_you_mean(named, FORMATS) if named else ""
        raise ConfigError(
            f"{named!r} is not a format of logs" if named else f"{output.name} names no format",
            fix=f"{hint}Use --format {', '.join(FORMATS)}",
        )
    return found


def _require_side(chosen: Chosen, form: Form) -> None:
    if chosen.side is None:
        return
    if chosen.side not in SPLITS:
        hint = did_you_mean(chosen.side, SPLITS)
        raise ConfigError(f"{chosen.side!r} is no side", fix=f"{hint}Known: {', '.join(SPLITS)}")
    if form == "tuning" and chosen.side != "train":
        raise DataError(
            f"{chosen.side} rows can't be tuned on",
            fix="Export them with --format openai to test with, or leave --side away",
        )


class _Export:
    """One export under way: its records in order of time, and why some are left out."""

    def __init__(self, ctx: Context, chosen: Chosen, min_score: float, prompt: str) -> None:
        self.left_out: dict[str, int] = {}
        self.edited = 0
        self._ctx, self._chosen = ctx, chosen
        self._min_score, self._prompt = min_score, prompt
        self._query = _query(ctx, chosen)
        self._output = ctx.config.output.format()
        self._declared: Mapping[str, Declared] = declare(ctx.config.feedback)

    def reset(self) -> None:
        """Forget what was counted."""
        self.left_out, self.edited = {}, 0

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield every record with its feedback."""
        for record, signals in self._records():
            yield record_line(record, signals)

    def chats(self) -> Iterator[dict[str, Any]]:
        """Yield each record with an answer as a chat; a corrected one stands in its place."""
        for record, signals in self._records():
            if self._usable(record, signals):
                yield self._chat(record, signals)

    def tuning(self) -> Iterator[dict[str, Any]]:
        """Yield what may be learnt, as chats."""
        ready = [(r, s) for r, s in self._records() if self._usable(r, s) and self._learnable(r, s)]
        texts = ["\n".join(_said(r)) for r, _ in ready]
        twins: Mapping[int, Twin] = {}
        if ready:
            threshold = self._ctx.config.data.dedup.threshold
            twins = find_twins(texts, _held_out(self._ctx), threshold=threshold)
        for index, (record, signals) in enumerate(ready):
            if index in twins:
                self._leave("twins of a held-out row")
            else:
                yield self._chat(record, signals)

    def _records(self) -> Iterator[tuple[RecordRow, list[SignalRow]]]:
        last: tuple[datetime, str] | None = None
        while True:
            query = self._query
            if last is not None:
                at, name = last
                later = (RecordRow.at > at) | ((RecordRow.at == at) & (RecordRow.id > name))
                query = query.where(later)
            with self._ctx.store.session() as session:
                rows: list[RecordRow] = list(session.scalars(query.limit(_AT_ONCE)))
                asked = select(SignalRow).where(SignalRow.record.in_([row.id for row in rows]))
                told: dict[str, list[SignalRow]] = defaultdict(list)
                for signal in session.scalars(asked):
                    told[signal.record].append(signal)
            yield from ((row, told[row.id]) for row in rows)
            if len(rows) < _AT_ONCE:
                return
            last = (rows[-1].at, rows[-1].id)

    def _usable(self, record: RecordRow, signals: Sequence[SignalRow]) -> bool:
        if not record.messages:
            return self._leave("without texts, which the log did not keep")
        if (record.status >= 400 or not record.response) and _edit(signals) is None:
            return self._leave("without an answer")
        return True

    def _learnable(self, record: RecordRow, signals: Sequence[SignalRow]) -> bool:
        if record.split != "train":
            return self._leave("held out: validation or test side")
        if _edit(signals) is not None:
            return True
        score = score_of(signals, self._declared, answer=record.response)
        if score is None:
            return self._leave("that nobody judged")
        return score >= self._min_score or self._leave(f"with a score below {self._min_score:g}")

    def _chat(self, record: RecordRow, signals: Sequence[SignalRow]) -> dict[str, Any]:
        edit = _edit(signals)
        self.edited += edit is not None
        answer = record.response if edit is None else edit
        if answer.strip() in self._output.labels:
            answer = self._output.render(answer.strip())
        line: dict[str, Any] = chat_line(record.messages, answer, self._prompt)
        return line

    def _leave(self, why: str) -> bool:
        self.left_out[why] = self.left_out.get(why, 0) + 1
        return False


def _held_out(ctx: Context) -> dict[str, HeldOut]:
    """Return the inputs of the held-out sides, of production and of the newest dataset version."""
    version = newest_version(ctx)
    frozen = {
        row.input_text: HeldOut(side, row.id)
        for side in SPLITS
        if version is not None and side != "train"
        for row in version.stream(side)
    }
    return held_out_inputs(ctx.store, frozen)


def _said(record: RecordRow) -> Iterator[str]:
    return (turn["content"] for turn in record.messages if turn["role"] != "system")


def _edit(signals: Sequence[SignalRow]) -> str | None:
    edits = [signal for signal in signals if signal.kind == "edit"]
    newest = max(edits, key=lambda signal: (signal.at, signal.key), default=None)
    return None if newest is None else str(newest.value["value"])


def _query(ctx: Context, chosen: Chosen) -> Any:
    query = select(RecordRow).order_by(RecordRow.at, RecordRow.id)
    if chosen.since or chosen.until:
        begin, end = span(chosen.since or "9999d", chosen.until)
        query = query.where(RecordRow.at >= begin, RecordRow.at < end)
    if chosen.release:
        query = query.where(RecordRow.release.in_(_releases(ctx, chosen.release)))
    if chosen.side:
        query = query.where(RecordRow.split == chosen.side)
    if chosen.failed:
        query = query.where(RecordRow.status >= 400)
    return query if chosen.shadow else query.where(RecordRow.arm != "shadow")


def _releases(ctx: Context, named: str) -> list[str]:
    """Return the id of a release by its name or first digits; a model of imported logs by name."""
    with ctx.store.session() as session:
        known = session.scalar(
            select(func.count()).select_from(RecordRow).where(RecordRow.release == named)
        )
    return [named] if known else [get_release(ctx.store, named).id]


def tail(ctx: Context, count: int = 20, *, chosen: Chosen | None = None) -> list[dict[str, Any]]:
    """Return the newest records, oldest first, each as `logs export` writes it."""
    query = _query(ctx, chosen or Chosen()).order_by(None)
    newest = query.order_by(RecordRow.at.desc(), RecordRow.id.desc()).limit(count)
    with ctx.store.session() as session:
        rows: list[RecordRow] = list(session.scalars(newest))[::-1]
        asked = select(SignalRow).where(SignalRow.record.in_([row.id for row in rows]))
        told: dict[str, list[SignalRow]] = defaultdict(list)
        for signal in session.scalars(asked):
            told[signal.record].append(signal)
    return [record_line(row, told[row.id]) for row in rows]


def follow(
    ctx: Context,
    known: Sequence[str] = (),
    *,
    chosen: Chosen | None = None,
    wait: Callable[[float], Any] = time.sleep,
) -> Iterator[dict[str, Any]]:
    """Yield records as they come, until the caller stops; `known` ids were shown before.

    The newest 1,000 are looked at each second, so that records which come late are seen too.
    """
    seen = dict.fromkeys(known)
    while True:
        for line in tail(ctx, _AT_ONCE, chosen=chosen):
            if line["id"] not in seen:
                seen[line["id"]] = None
                yield line
        for name in list(seen)[: -4 * _AT_ONCE]:
            del seen[name]
        wait(_EVERY_S)
