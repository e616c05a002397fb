"""The protocol of readers, and how what they read becomes examples, one row at a time.

A reader turns bytes into rows of named fields; shape.py turns such a row into an Example. A
broken row becomes a Rejected with its place and reason, and the next one is read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tutelage.core.errors import DataError
from tutelage.core.example import Example
from tutelage.data.findings import catalogue
from tutelage.data.readers.turns import Unusable
from tutelage.data.repairs import key_of, rows_in

if TYPE_CHECKING:
    from tutelage.core.config import Columns, Task
    from tutelage.core.output import OutputFormat
    from tutelage.data.readers.shape import Shaper

_RAW_SHOWN = 2000  # characters of a broken row that are kept
_FEW_DOCUMENTS = 3  # that a pattern matches: each has a line of its own


@dataclass(frozen=True)
class RawRow:
    """One row as the file has it: named fields and its place in the file ("12" or "#3").

    `read` is how many bytes of the file were read when it came, 0 if the reader can't tell.
    """

    fields: dict[str, Any]
    line: str
    read: int = 0


@dataclass(frozen=True)
class Broken:
    """One line that is no row: why, and the text. Without a line it is the whole file."""

    finding_id: str
    detail: str
    line: str
    raw: str


Item = RawRow | Broken


class Reader(Protocol):
    """One file format.

    On the class, `binary = True` says that the file is not text, so that no encoding is looked
    for; `raw_text = True` that it gives raw text of documents, not rows. A reader may keep a list
    of `notes`: what to know of the file as a whole once it was read.
    """

    def accepts(self, path: Path, head: bytes) -> bool:
        """Return whether this reader takes the file, by its name and first bytes."""
        ...

    def read(self, path: Path, encoding: str) -> Iterator[Item]:
        """Yield the rows in order; `encoding` was found by the first bytes."""
        ...


@dataclass(frozen=True)
class Rejected:
    """A row that could not be used. `source` is file:line, `raw` the text's beginning.

    `whole` is all of the text as it was found.
    """

    reason: str
    source: str
    raw: str
    finding_id: str
    whole: str = field(default="", repr=False)

    @property
    def is_error(self) -> bool:
        """Whether a person should look; log entries that are no model call are only left out."""
        return catalogue()[self.finding_id].severity == "error"


@dataclass
class ReadResult:
    """Everything the sources gave: `detected` says per file what it was taken for, and why.

    `skipped` are rows that nobody has to mend: log entries that are no answered model call.
    `mended` are the places of lines that were read from a repair.
    """

    examples: list[Example] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    detected: list[str] = field(default_factory=list)
    skipped: list[Rejected] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """What a file held, counted while it is read."""

    name: str
    size: int = 0  # bytes, 0 if unknown
    read: int = 0  # bytes read so far
    shapes: Counter[tuple[str, str]] = field(default_factory=Counter)
    unusable: int = 0
    skipped: int = 0
    whole: str | None = None  # why the file can't be read at all
    repairs: Mapping[str, str] = field(default_factory=dict)  # rows in place of lines, by key
    mended: list[str] = field(default_factory=list)  # places of such lines
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return what the file was taken for and why, and what to know of it."""
        parts = [f"{count:,} {_rows(count)}, {name} ({why})" for (name, why), count in self._named]
        parts += [f"{self.unusable:,} {_rows(self.unusable)} unusable"] if self.unusable else []
        parts += [f"{self.skipped:,} left out"] if self.skipped else []
        parts += [f"{len(self.mended):,} mended"] if self.mended else []
        said = "; ".join(parts) or (self.whole or "no rows")
        return [f"{self.name}: {said}", *(f"{self.name}: {note}" for note in self.notes)]

    @property
    def is_whole_text(self) -> bool:
        """Whether all of it is raw text, and there is nothing more to say."""
        odd = self.unusable or self.skipped or self.whole or self.mended or self.notes
        return not odd and {name for name, _ in self.shapes} == {"raw text"}

    @property
    def _named(self) -> list[tuple[tuple[str, str], int]]:
        return self.shapes.most_common()


def read_sources(
    root: Path,
    patterns: list[str],
    columns: Columns,
    output: OutputFormat,
    task: Task = "generation",
    repairs: Mapping[str, str] | None = None,
    conceal: Callable[[Rejected], Rejected] | None = None,
) -> ReadResult:
    """Read every file that matches `patterns` (relative to `root`), in name order.

    `repairs` are rows that stand for lines that can't be used, by the lines' keys. `conceal`
    hides what may not be told of a row that can't be used. Raises DataError if a pattern matches
    nothing or no row of any file can be used.
    """
    from tutelage.data.readers.files import find_by_pattern, shown
    from tutelage.data.readers.shape import Shaper

    result = ReadResult()
    for pattern, paths in find_by_pattern(root, patterns, result.detected, task).items():
        tallies = []
        for path in paths:
            tallies.append(tally := Tally(shown(path, root), repairs=repairs or {}))
            for item in read_file(path, Shaper(columns, output, task), tally):
                if isinstance(item, Example):
                    result.examples.append(item)
                    continue
                told = conceal(item) if conceal else item
                (result.rejected if item.is_error else result.skipped).append(told)
            result.mended += tally.mended
        result.detected += _summed(pattern, tallies)
    if not result.examples:
        bad = result.rejected or result.skipped
        raise nothing_usable(next(iter(bad), None), len(bad), result.detected)
    if task == "text":
        _free_single_document(result)
    return result


def _summed(pattern: str, tallies: Sequence[Tally]) -> list[str]:
    """Return what the files of a pattern were taken for: many whole documents in one line."""
    whole = [tally for tally in tallies if tally.is_whole_text]
    if len(whole) <= _FEW_DOCUMENTS:
        return [line for tally in tallies for line in tally.lines()]
    all_of_them = Tally(f"{pattern}: {len(whole):,} files")
    for tally in whole:
        all_of_them.shapes += tally.shapes
    others = (tally for tally in tallies if not tally.is_whole_text)
    return [*all_of_them.lines(), *(line for tally in others for line in tally.lines())]


def _free_single_document(result: ReadResult) -> None:
    """Let the passages of an only document be split: as one group they would all be on one side."""
    documents = {row.meta.get("document") if row.is_text else None for row in result.examples}
    groups = {row.group for row in result.examples}
    if documents == groups and len(groups) == 1 and None not in groups:
        result.examples = [row.model_copy(update={"group": None}) for row in result.examples]
        (name,) = groups
        result.detected.append(f"{name}: the only document, so its passages are split")


def read_file(
    path: Path, shaper: Shaper, tally: Tally, encoding: str | None = None
) -> Iterator[Example | Rejected]:
    """Yield what one file holds, row by row; what it was taken for is counted in `tally`.

    A file that can't be read at all gives one Rejected. `encoding` overrides what the first
    bytes say.
    """
    from tutelage.data.readers.files import encoding_of, head_of, is_documents, reader_for

    reader = reader_for(path)
    if reader is None:
        raise DataError("there is no reader for it", where=tally.name, fix="Bring JSON or a table")
    head = head_of(path)
    if not head.strip():
        tally.whole = "empty"
        return
    found = encoding or ("" if getattr(reader, "binary", False) else encoding_of(head))
    if found is None:
        tally.whole = "this is binary data, not text"
        yield Rejected(tally.whole, tally.name, "", "D1-R10")
        return
    items = reader.read(path, found)
    if is_documents(reader):
        items = _of_document(items, tally.name)
    yield from shaped(items, shaper, tally)
    tally.notes += getattr(reader, "notes", ())


def shaped(items: Iterable[Item], shaper: Shaper, tally: Tally) -> Iterator[Example | Rejected]:
    """Yield an Example for each row that has a known shape, a Rejected for each that has not."""
    try:
        for item in items:
            if isinstance(item, RawRow):
                tally.read = max(tally.read, item.read)
                yield _shaped(item, shaper, tally)
                continue
            mended = _mended(item.raw, _source(tally.name, item.line), shaper, tally)
            if mended:
                yield from mended
                continue
            if not item.line:
                tally.whole = item.detail
            tally.unusable += bool(item.line)
            source = _source(tally.name, item.line)
            yield Rejected(item.detail, source, _printable(item.raw), item.finding_id, item.raw)
    except UnicodeError as error:
        tally.whole = f"the text can't be decoded ({error})"
        yield Rejected(tally.whole, tally.name, "", "D1-R10")


def _shaped(row: RawRow, shaper: Shaper, tally: Tally) -> Example | Rejected:
    source = _source(tally.name, row.line)
    try:
        example, shape = shaper.example(row.fields, source)
    except Unusable as problem:
        raw = json.dumps(row.fields, ensure_ascii=False, default=str)
        mended = _mended(raw, source, shaper, tally)
        if mended:
            return mended[0]
        rejected = Rejected(problem.detail, source, _printable(raw), problem.finding_id, raw)
        if rejected.is_error:
            tally.unusable += 1
        else:
            tally.skipped += 1
        return rejected
    tally.shapes[shape.name, shape.why] += 1
    return example


def _mended(raw: str, source: str, shaper: Shaper, tally: Tally) -> list[Example]:
    """Return the rows that a repair puts in place of a line; none without a repair that fits."""
    value = tally.repairs.get(key_of(raw)) if tally.repairs else None
    if value is None:
        return []
    try:
        found = [shaper.example(fields, source) for fields in rows_in(value)]
    except Unusable:
        return []
    tally.mended.append(source)
    for _, shape in found:
        tally.shapes[shape.name, shape.why] += 1
    return [example for example, _ in found]


def _of_document(items: Iterable[Item], name: str) -> Iterator[Item]:
    """Name the document in its passages: what belongs together stays on one side of the split."""
    for item in items:
        if isinstance(item, RawRow):
            item = RawRow({**item.fields, "document": name}, item.line, item.read)
        yield item


def _printable(text: str) -> str:
    """Return the beginning of a text as UTF-8 can hold it; bytes that are no text are spelled."""
    return text[:_RAW_SHOWN].encode("utf-8", "backslashreplace").decode()


def _source(name: str, line: str) -> str:
    if not line:
        return name
    return f"{name}{line}" if line.startswith("#") else f"{name}:{line}"


def nothing_usable(
    first: Rejected | None, count: int, detected: list[str], *, options: bool = False
) -> DataError:
    """Return the error for sources without a usable row; `first` of `count` says why not.

    With `options` a command was given the sources: its options are named, not the settings.
    """
    if first is None:
        settings = "correct data.sources in tutelage.yaml"
        return DataError(
            "the sources hold no rows",
            where="; ".join(detected) or None,
            fix=f"Put your rows in the files, or {'name others' if options else settings}",
        )
    kind = catalogue()[first.finding_id]
    fix = (kind.option if options else "") or kind.fix
    if ":" not in first.source and "#" not in first.source:
        return DataError(first.reason, where=first.source, fix=fix)
    said = "the only row" if count == 1 else f"none of the {count:,} rows"
    verb = "can't be used" if count == 1 else "can be used"
    return DataError(f"{said} {verb}; the first: {first.reason}", where=first.source, fix=fix)


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"
