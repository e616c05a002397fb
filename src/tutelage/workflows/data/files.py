"""Rows in and out: any known file to OpenAI JSON lines, a dataset version or a file to others.

Both go row by row, so that a file of any size can be read and written. A project is not needed
to turn one file into another.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from tutelage.core.config import Columns, Task
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.events import Emit, Event, silent
from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.core.workspace import Workspace
from tutelage.data.readers.base import Rejected, Tally, nothing_usable, read_file, shaped
from tutelage.data.readers.files import files_of, find_files, is_documents, reader_for
from tutelage.data.readers.hub import PREFIX, parse_name, read_hub
from tutelage.data.readers.shape import Shaper, known_format
from tutelage.data.writers.files import json_line, replacing
from tutelage.data.writers.rows import openai_row
from tutelage.workflows.context import Context

STAGE = "import"
_EVERY = 2000  # rows between two progress events
_NAME = re.compile(r"[\w][\w.-]*")


@dataclass(frozen=True)
class Reading:
    """How files are read: what `--format`, `--encoding` and the project's settings say."""

    format: str = "auto"  # a shape of rows, see readers/shape.py
    encoding: str | None = None  # unset: found by the first bytes
    columns: Columns = field(default_factory=Columns)
    output: OutputFormat = field(default_factory=OutputFormat)
    task: Task = "generation"
    documents: bool = True  # whether documents are read, as raw text

    def with_columns(self, input: str | None, output: str | None) -> Reading:
        """Return the same with other columns named; what is None stays."""
        named = {"input": input, "output": output}
        update = {key: value for key, value in named.items() if value is not None}
        return replace(self, columns=self.columns.model_copy(update=update))

    def files(self, path: Path, notes: list[str]) -> list[Path]:
        """Return the files that a path names and that can be read; what is skipped is noted."""
        raw = self.documents or self.format == "text"
        return files_of(path, "text" if raw else self.task, notes)

    def shaper(self, path: Path | None = None) -> Shaper:
        """Return the reader of rows; answers are taken as they are, curation checks them."""
        reader = reader_for(path) if path else None
        raw = self.format == "text" or (reader is not None and is_documents(reader))
        task: Task = "text" if raw else self.task
        return Shaper(self.columns, self.output, task, format=self.format, strict=False)


@dataclass(frozen=True)
class Imported:
    """What an import gave. `skipped` rows are log entries that are no answered model call."""

    output: str
    rows: int
    rejected: int
    skipped: int
    rejected_file: str | None
    first: str | None  # place and reason of the first rejected row
    detected: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON."""
        return asdict(self)


def reading_of(ctx: Context, format: str = "auto", encoding: str | None = None) -> Reading:
    """Return how a project's settings read files; group and time stay fields of their own."""
    config = ctx.config
    columns = Columns(input=config.data.columns.input, output=config.data.columns.output)
    output, raw = config.output.format(), config.task == "text"
    return Reading(format, encoding, columns, output, config.task, documents=raw)


def import_into(
    ctx: Context,
    sources: Sequence[str],
    *,
    to: str | None = None,
    reading: Reading | None = None,
    force: bool = False,
) -> Imported:
    """Write the rows of `sources` to data/<to>.jsonl of the project.

    Rows that can't be used go to .tutelage/imports/<to>.rejected.jsonl with file, line and
    reason. Raises DataError if no row can be used, or the target is there and not `force`.
    """
    name = to or default_name(sources)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no file name", fix="Use letters, digits, - and _ after --to"
        )
    name = name.removesuffix(".jsonl")
    target = ctx.workspace.root / "data" / f"{name}.jsonl"
    _refuse_own_sources(ctx, sources)
    reading = reading or reading_of(ctx)
    return import_files(
        sources, target, reading, rejected=rejected_path(ctx.workspace, name),
        force=force, emit=ctx.emit,
    )  # fmt: skip


def default_name(sources: Sequence[str]) -> str:
    """Return the name of the file that an import makes: the first source's, cleaned."""
    if not sources:
        raise DataError("no file is named", fix="Name one, or a folder")
    first = sources[0]
    stem = parse_name(first).short if first.startswith(PREFIX) else Path(first).resolve().stem
    return re.sub(r"[^\w-]+", "-", stem).strip("-") or "imported"


def rejected_path(workspace: Workspace, name: str) -> Path:
    """Return where the rows of an import that can't be used are kept."""
    return workspace.home / "imports" / f"{name}.rejected.jsonl"


def _refuse_own_sources(ctx: Context, sources: Sequence[str]) -> None:
    known = _sources(ctx)
    for source in sources:
        if Path(source).resolve() in known:
            raise DataError(
                "the project reads this file already, as it is",
                where=source,
                fix="There is nothing to import: run `tutelage data check`",
            )


def is_source(ctx: Context, path: Path) -> bool:
    """Return whether curation reads a file, as data.sources stands."""
    return path.resolve() in _sources(ctx)


def _sources(ctx: Context) -> set[Path]:
    with contextlib.suppress(DataError):
        data = ctx.config.data
        found = find_files(ctx.workspace.root, data.sources, [], ctx.config.task)
        return {path.resolve() for path in found}
    return set()


def import_files(
    sources: Sequence[str],
    output: Path,
    reading: Reading | None = None,
    *,
    rejected: Path | None = None,
    force: bool = False,
    emit: Emit = silent,
) -> Imported:
    """Write the rows of `sources` (files, folders, hf:org/name) to `output`, whole or not at all.

    What can't be used goes to `rejected` (unset: beside the output), and the good rows go on.
    """
    reading = reading or Reading()
    known_format(reading.format)
    require_encoding(reading.encoding)
    if output.exists() and not force:
        raise DataError(
            "the file is there already",
            where=str(output),
            fix="Name another one, or replace it with --force",
        )
    left = rejected or output.with_name(f"{output.stem}.rejected.jsonl")
    job = Importing(reading, emit)
    with replacing(left) as left_path, replacing(output) as path:
        with _writing(left_path) as job.left, _writing(path) as stream:
            for example in job.examples(sources):
                stream.write(json_line(openai_row(example)))
        if not job.rows:
            path.unlink()
        if not job.first:
            left_path.unlink()
            left.unlink(missing_ok=True)  # of an earlier import of the same name
    if not job.rows:
        raise nothing_usable(
            job.first, job.rejected + job.skipped, job.detected, options=True
        )  # fmt: skip
    return job.result(output, left)


def require_encoding(name: str | None) -> None:
    """Raise ConfigError unless `name` is an encoding, or unset."""
    try:
        codecs.lookup(name or "utf-8")
    except LookupError as error:
        raise ConfigError(
            f"{name!r} is no encoding", fix="Use one such as utf-8, cp1252 or latin-1"
        ) from error


def _writing(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="\n")


class Importing:
    """One import under way: what it read, kept and left out so far.

    `conceal` hides what may not be told of a row that is left out.
    """

    def __init__(
        self, reading: Reading, emit: Emit, conceal: Callable[[Rejected], Rejected] | None = None
    ) -> None:
        self._conceal = conceal
        self.rows = self.rejected = self.skipped = 0
        self.detected: list[str] = []
        self.first: Rejected | None = None  # an error before a row that was only skipped
        self.left: TextIO = io.StringIO()
        self._seen = 0
        self._reading = reading
        self._emit = emit

    def examples(self, sources: Sequence[str]) -> Iterator[Example]:
        """Yield every usable row; write down the others."""
        for source in sources:
            if source.startswith(PREFIX):
                yield from self._hub(source)
                continue
            for path in self._reading.files(Path(source), self.detected):
                tally = Tally(str(path), size=path.stat().st_size)
                shaper = self._reading.shaper(path)
                found = read_file(path, shaper, tally, self._reading.encoding)
                yield from self._usable(found, tally)

    def _hub(self, source: str) -> Iterator[Example]:
        name = parse_name(source)
        tally = Tally(source)
        items = read_hub(name, tally.notes)
        yield from self._usable(shaped(items, self._reading.shaper(), tally), tally)

    def _usable(self, found: Iterable[Example | Rejected], tally: Tally) -> Iterator[Example]:
        for item in found:
            self._seen += 1
            if self._seen % _EVERY == 0:
                self._emit(
                    Event(STAGE, "progress", tally.name, tally.read, tally.size or None)
                )  # fmt: skip
            if isinstance(item, Example):
                self.rows += 1
                yield item
            else:
                self._leave(item)
        self.detected += tally.lines()

    def _leave(self, row: Rejected) -> None:
        row = self._conceal(row) if self._conceal else row
        if row.is_error:
            self.rejected += 1
        else:
            self.skipped += 1
        if self.first is None or (row.is_error and not self.first.is_error):
            self.first = row
        self.left.write(json_line(left_row(row)))

    def result(self, output: Path, left: Path) -> Imported:
        """Return the figures; say that it is done if anybody was told how far it was."""
        if self._seen >= _EVERY:
            self._emit(Event(STAGE, "done", f"{self.rows:,} rows"))
        first = self.first if self.first and self.first.is_error else None
        return Imported(
            output=str(output),
            rows=self.rows,
            rejected=self.rejected,
            skipped=self.skipped,
            rejected_file=str(left) if self.first else None,
            first=f"{first.source}: {first.reason}" if first else None,
            detected=self.detected,
        )


def left_row(row: Rejected) -> dict[str, Any]:
    """Return a row that was left out as quarantine.jsonl keeps it."""
    file, _, line = row.source.rpartition(":")
    numbered = line.isdigit()
    return {
        "finding": row.finding_id,
        "reason": row.reason,
        "file": file if numbered else row.source,
        "line": int(line) if numbered else None,
        "row": row.raw,
    }
