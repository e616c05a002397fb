"""Feedback that comes in bulk or from the command line: read from files, kept in the store.

Each line of a file is one delivery, as POST /v1/feedback takes it. It is kept whole or not at all,
and a file that is read twice changes nothing.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from sqlalchemy import select

from tutelage.core.artifact import content_hash
from tutelage.core.errors import DataError, EnvironmentProblem
from tutelage.data.readers.table import find_delimiter
from tutelage.feedback.signals import OWN_FIELDS, Feedback
from tutelage.serving.records.log_writer import Batch, Delivery, KeyReused, Record, Writer
from tutelage.store.base import Store
from tutelage.store.records import RecordRow, SignalRow

KEY = "idempotency_key"  # of a delivery in a file; over HTTP it is a header
_FIELDS = ("record_id", "response_id", *OWN_FIELDS, "author", "at", KEY, "signals")
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class Given:
    """One checked delivery of a batch, its idempotency key hashed with its sender, if it has one.

    `place` says where it stood, for what is said about it.
    """

    place: str
    feedback: Feedback
    key: str | None = None


@dataclass(frozen=True)
class Kept:
    """What became of a batch: `repeated` signals were there before.

    `unknown` counts the records that the store does not have (yet), `refused` holds (place,
    sentence) of deliveries that were not kept.
    """

    deliveries: int
    signals: int
    repeated: int
    unknown: int
    refused: tuple[tuple[str, str], ...]


def retry_key(sender: str | None, given: str) -> str:
    """Return an idempotency key as the store knows it; two senders may use the same."""
    return content_hash([sender, given])


def keep_deliveries(store: Store, batch: Sequence[Given]) -> Kept:
    """Keep a batch in one transaction; when this returns it is durable.

    Raises EnvironmentProblem if the store takes nothing now: then nothing of it was kept.
    """
    answers: dict[int, BaseException] = {}

    def done(index: int, error: BaseException | None) -> None:
        if error is not None:
            answers[index] = error

    deliveries = [
        Delivery(one.feedback.rows, partial(done, index), one.key, digest_of(one.feedback))
        for index, one in enumerate(batch)
    ]
    there = _there(store, batch)
    outcome = Writer(store, _no_record).write(Batch(deliveries=deliveries))
    if outcome.trouble is not None:
        raise EnvironmentProblem(
            f"the store takes nothing now ({outcome.trouble})", fix="Try again in a moment"
        )
    refused = tuple((batch[index].place, _sentence(error)) for index, error in answers.items())
    rows = [r for i, one in enumerate(batch) if i not in answers for r in one.feedback.rows]
    fresh = {row["key"] for row in rows} - there
    return Kept(
        len(batch) - len(refused),
        len(fresh),
        len(rows) - len(fresh),
        _unknown(store, batch),
        refused,
    )


def digest_of(feedback: Feedback) -> str:
    """Return what is the same for two deliveries of the same content."""
    return content_hash([row["key"] for row in feedback.rows])


def _there(store: Store, batch: Sequence[Given]) -> set[str]:
    keys = [row["key"] for one in batch for row in one.feedback.rows]
    with store.session() as session:
        return set(session.scalars(select(SignalRow.key).where(SignalRow.key.in_(keys))))


def _unknown(store: Store, batch: Sequence[Given]) -> int:
    names = {one.feedback.record for one in batch}
    with store.session() as session:
        known = session.scalars(select(RecordRow.id).where(RecordRow.id.in_(names)))
        return len(names - set(known))


def _no_record(record: Record) -> dict[str, Any]:
    raise LookupError(f"{record} is no feedback")


def _sentence(error: BaseException) -> str:
    if isinstance(error, KeyReused):
        return "its idempotency key came before with other content"
    return f"the store could not keep it ({error})"


def read_file(path: Path, texts: Container[str] = ()) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (line, the delivery's body or what is wrong with it) of a .jsonl or .csv file.

    In CSV the columns that are no field of a delivery are signals; empty cells say nothing, and
    those of the signals `texts` stay as they are.
    Raises DataError if the file can't be read at all.
    """
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="Check the path")
    suffix = path.suffix.lower()
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            if suffix in (".csv", ".tsv"):
                yield from _of_table(path, lines, texts)
            elif suffix in (".jsonl", ".ndjson"):
                yield from _of_lines(lines)
            else:
                raise DataError(
                    f"feedback is not read from {suffix or 'files without an ending'}",
                    where=str(path),
                    fix="Bring .jsonl with one delivery a line, or .csv",
                )
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=str(path), fix="Save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"not CSV ({error})", where=str(path), fix="Save it as CSV") from error


def _of_lines(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            yield number, "not JSON"
            continue
        yield number, body if isinstance(body, dict) else "not a JSON object"


def _of_table(
    path: Path, stream: IO[str], texts: Container[str]
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    delimiter = find_delimiter(stream, path)
    stream.seek(0)
    table = csv.DictReader(stream, delimiter=delimiter)
    names = list(table.fieldnames or ())
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(
            f"there are two columns {twice!r}", where=str(path), fix="Give each its own name"
        )
    if not {"record_id", "response_id"} & set(names):
        raise DataError(
            f"there is no column record_id or response_id, it has {', '.join(names) or 'none'}",
            where=str(path),
            fix="Name the column with the ids of the answers record_id",
        )
    for row in table:
        if None in row:
            yield table.line_num, "more cells than columns"
        else:
            yield table.line_num, _of_row(row, texts)


def _of_row(row: Mapping[str, str | None], texts: Container[str]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    signals: dict[str, Any] = {}
    for name, cell in row.items():
        if cell is None or not cell.strip():
            continue
        if name == "rating":
            body[name] = value_of(cell)
        elif name in _FIELDS:
            body[name] = cell
        else:
            signals[name] = cell if name in texts else value_of(cell)
    return {**body, "signals": signals} if signals else body


def value_of(text: str) -> Any:
    """Return what a cell or an argument says: true, false, a number, or text."""
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text  # `nan` is how tables write a gap
    return text
