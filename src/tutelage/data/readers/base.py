"""Find the source files, pick a reader for each, and turn what it reads into examples.

A reader turns bytes into rows of named fields; shape.py turns such a row into an Example. A
broken line becomes a Rejected with its place and reason, and the next line is read.
"""

from __future__ import annotations

import glob
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tutelage.core import plugins
from tutelage.core.config import Columns
from tutelage.core.errors import DataError
from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.data.readers.shape import Shaper, Unusable

_HEAD_BYTES = 65536
_RAW_SHOWN = 2000  # characters of a broken line that are kept
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True)
class RawRow:
    """One row as the file has it: named fields and its place in the file ("12" or "#3")."""

    fields: dict[str, Any]
    line: str


@dataclass(frozen=True)
class Broken:
    """One line that is no row: why, and the text."""

    finding_id: str
    detail: str
    line: str
    raw: str


class Reader(Protocol):
    """One file format."""

    def accepts(self, path: Path, head: bytes) -> bool:
        """Return whether this reader takes the file, by its name and first bytes."""
        ...

    def read(self, path: Path, encoding: str) -> Iterator[RawRow | Broken]:
        """Yield the rows in order; `encoding` was found by the byte-order mark."""
        ...


@dataclass(frozen=True)
class Rejected:
    """A row that could not be used. `source` is file:line, `raw` the text as found."""

    reason: str
    source: str
    raw: str
    finding_id: str


@dataclass
class ReadResult:
    """Everything the sources gave: `detected` says per file what it was taken for."""

    examples: list[Example] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    detected: list[str] = field(default_factory=list)


def read_sources(
    root: Path, patterns: list[str], columns: Columns, output: OutputFormat
) -> ReadResult:
    """Read every file that matches `patterns` (relative to `root`), in name order.

    Raises DataError if a pattern matches nothing, a file can't be read at all, or no row of any
    file can be used.
    """
    result = ReadResult()
    for path in find_files(root, patterns, result):
        _read_file(path, _shown(path, root), Shaper(columns, output), result)
    if not result.examples:
        raise _nothing_usable(result)
    return result


def find_files(root: Path, patterns: list[str], result: ReadResult) -> list[Path]:
    """Return the files to read; what a wildcard matched but no reader takes is noted."""
    chosen: list[Path] = []
    for pattern in patterns:
        wild = glob.has_magic(pattern)
        names = sorted(glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207
        if not names:
            raise DataError(
                f"no file matches {pattern!r}",
                where=str(root),
                fix="Put your rows there, or correct data.sources in tutelage.yaml",
            )
        before = len(chosen)
        for name in names:
            path = root / name
            if path.is_dir():
                if not wild:
                    raise DataError(
                        "this is a folder, not a file",
                        where=_shown(path, root),
                        fix=f"Write {name.rstrip('/')}/* in data.sources to read the files in it",
                    )
                continue
            if path not in chosen and _takes(path, root, wild, result):
                chosen.append(path)
        if len(chosen) == before and wild and not any((root / n) in chosen for n in names):
            raise DataError(
                f"no file that matches {pattern!r} can be read",
                where=", ".join(names[:3]),
                fix="Bring .jsonl, .json, .csv or .tsv files",
            )
    return chosen


def _takes(path: Path, root: Path, wild: bool, result: ReadResult) -> bool:
    name = _shown(path, root)
    if not path.exists():
        raise DataError("the link points to nothing", where=name, fix="Correct the link")
    reader = _reader_for(path)
    if reader is not None:
        return True
    if wild:
        result.detected.append(f"{name}: skipped, no reader for {path.suffix or 'such files'}")
        return False
    raise DataError(
        f"there is no reader for {path.suffix or 'files without an ending'}",
        where=name,
        fix="Bring the rows as .jsonl, .json, .csv or .tsv",
    )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(
            f"the file can't be opened ({error.strerror})",
            where=str(path),
            fix="Check its permissions",
        ) from error


def _reader_for(path: Path) -> Reader | None:
    head = _head(path)
    for name in sorted(plugins.available("readers")):
        reader: Reader = plugins.load("readers", name)()
        if reader.accepts(path, head):
            return reader
    return None


def _encoding(head: bytes, name: str) -> str:
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    if b"\0" in head:
        raise DataError(
            "this is binary data, not text",
            where=name,
            fix="Export the rows as JSON lines or CSV in UTF-8",
        )
    return "utf-8"


def _read_file(path: Path, name: str, shaper: Shaper, result: ReadResult) -> None:
    reader = _reader_for(path)
    if reader is None:
        raise DataError("the file changed while it was read", where=name, fix="Run it again")
    head = _head(path)
    if not head.strip():
        result.detected.append(f"{name}: empty")
        return
    shapes: Counter[str] = Counter()
    before = len(result.rejected)
    try:
        for item in reader.read(path, _encoding(head, name)):
            source = f"{name}{item.line if item.line.startswith('#') else ':' + item.line}"
            if isinstance(item, Broken):
                result.rejected.append(
                    Rejected(item.detail, source, item.raw[:_RAW_SHOWN], item.finding_id)
                )
                continue
            try:
                example, shape = shaper.example(item.fields, source)
            except Unusable as problem:
                raw = json.dumps(item.fields, ensure_ascii=False, default=str)[:_RAW_SHOWN]
                result.rejected.append(Rejected(problem.detail, source, raw, problem.finding_id))
                continue
            result.examples.append(example)
            shapes[shape] += 1
    except UnicodeError as error:
        raise DataError(
            f"the text can't be decoded ({error})", where=name, fix="Save the file as UTF-8"
        ) from error
    broken = len(result.rejected) - before
    parts = [f"{shape}, {count:,} {_rows(count)}" for shape, count in shapes.most_common()]
    parts += [f"{broken:,} {_rows(broken)} unusable"] if broken else []
    result.detected.append(f"{name}: {'; '.join(parts) or 'no rows'}")


def _nothing_usable(result: ReadResult) -> DataError:
    if not result.rejected:
        return DataError(
            "the sources hold no rows",
            where="; ".join(result.detected) or None,
            fix="Put your rows in the files, or correct data.sources in tutelage.yaml",
        )
    first = result.rejected[0]
    count = len(result.rejected)
    said = "the only row" if count == 1 else f"none of the {count:,} rows"
    verb = "can't be used" if count == 1 else "can be used"
    from tutelage.data.findings import catalogue

    return DataError(
        f"{said} {verb}; the first: {first.reason}",
        where=first.source,
        fix=catalogue()[first.finding_id].fix,
    )


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"


def _shown(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)
