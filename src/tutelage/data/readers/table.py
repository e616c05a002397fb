"""CSV and TSV: the delimiter is found, quotes are strict, and a bad row never eats the next."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from statistics import mode
from typing import IO, Any

from tutelage.data.readers.base import Broken, Item, RawRow
from tutelage.data.readers.turns import is_turns, looks_like_turns, parse_json

_ENDINGS = (".csv", ".tsv", ".tab")
_FIELD_LIMIT = 64_000_000  # characters
_RECORD_LINES = 5000  # lines one quoted row may span before its quote counts as unclosed
_SAMPLE_LINES = 100
_SAMPLE_LENGTH = 1_000_000  # characters of such a line
_TELL_EVERY = 256  # rows between two looks at how much of the file was read


class CsvReader:
    """Reads .csv and .tsv with a header row, delimited by comma, semicolon, tab or bar."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def accepts(self, path: Path, head: bytes) -> bool:
        """Return whether the name ends like a table."""
        return path.suffix.lower() in _ENDINGS

    def read(self, path: Path, encoding: str) -> Iterator[Item]:
        """Yield one row a record. A table of one column of conversations needs no header."""
        csv.field_size_limit(_FIELD_LIMIT)
        with path.open(encoding=encoding, errors="surrogateescape", newline="") as stream:
            delimiter = find_delimiter(stream, path)
            stream.seek(0)
            header: list[str] | None = None
            read = 0
            for number, record in _Records(stream, delimiter):
                if number % _TELL_EVERY == 0:
                    read = int(_buffer(stream).tell())
                if isinstance(record, Broken):
                    yield record
                elif not any(record):
                    continue
                elif header is not None:
                    yield _row(header, record, number, delimiter, read)
                elif len(record) == 1 and _is_conversation(record[0]):
                    header = ["messages"]
                    self.notes.append("it has no header")
                    yield _row(header, record, number, delimiter, read)
                else:
                    header = self._header(record)

    def _header(self, record: list[str]) -> list[str]:
        """Return the names of the columns, each once; what was renamed is noted."""
        names: list[str] = []
        for index, cell in enumerate(record, start=1):
            name = cell.strip().lstrip("\ufeff") or f"column_{index}"
            if name in names:
                number = 2
                while f"{name}_{number}" in (*names, *record):
                    number += 1
                new = f"{name}_{number}"
                self.notes.append(f"column {index} is called {name!r} too, and read as {new!r}")
                name = new
            names.append(name)
        return names


class _Records:
    """Parses records one by one; after a broken one it goes on at the following line."""

    def __init__(self, stream: IO[str], delimiter: str) -> None:
        self._stream = stream
        self._delimiter = delimiter
        self._again: list[str] = []  # lines to be read again, last first
        self._used: list[str] = []  # lines of the record being read
        self._line = 0

    def __iter__(self) -> Iterator[tuple[int, list[str] | Broken]]:
        while True:
            self._used = []
            start = self._line + 1
            try:
                record = next(csv.reader(self._lines(), delimiter=self._delimiter, strict=True))
            except StopIteration:
                return
            except csv.Error as error:
                self._again.extend(reversed(self._used[1:]))
                self._line = start
                raw = self._used[0].rstrip("\r\n")
                yield start, Broken(*_why(error), str(start), raw)
                continue
            yield start, record

    def _lines(self) -> Iterator[str]:
        while True:
            if len(self._used) >= _RECORD_LINES:
                raise csv.Error("unexpected end of data")
            line = self._again.pop() if self._again else self._stream.readline(_FIELD_LIMIT)
            if not line:
                return
            if len(line) >= _FIELD_LIMIT and not line.endswith(("\n", "\r")):
                self._skip_line()
                self._used.append(line[:2000])
                self._line += 1
                raise csv.Error("field larger than field limit")
            self._used.append(line)
            self._line += 1
            yield line

    def _skip_line(self) -> None:
        """Read on to the end of a line without keeping it."""
        while part := self._stream.readline(_FIELD_LIMIT):
            if part.endswith(("\n", "\r")):
                return


def _buffer(stream: Any) -> Any:
    """Return the bytes below a text stream."""
    return stream.buffer


def _is_conversation(cell: str) -> bool:
    """Return whether a cell holds a list of turns as JSON."""
    return looks_like_turns(cell) and is_turns(parse_json(cell))


def find_delimiter(stream: IO[str], path: Path) -> str:
    """Return the delimiter that gives the most even rows over the first lines."""
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    lines = [stream.readline(_SAMPLE_LENGTH) for _ in range(_SAMPLE_LINES)]
    best, best_score = ",", 0.0
    for delimiter in ",;\t|":
        try:
            widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            continue
        if not widths or widths[0] < 2:
            continue
        usual = mode(widths)
        score = sum(width == usual == widths[0] for width in widths) / len(widths)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _row(
    header: list[str], record: list[str], number: int, delimiter: str, read: int
) -> RawRow | Broken:
    place = str(number)
    raw = delimiter.join(record)
    if len(record) != len(header):
        return Broken("D1-R06", f"{len(record)} columns instead of {len(header)}", place, raw)
    try:
        raw.encode()
    except UnicodeEncodeError as error:
        byte = ord(raw[error.start]) - 0xDC00
        return Broken("D1-R02", f"not UTF-8 text: byte 0x{byte & 0xFF:02x}", place, raw)
    if "\0" in raw:
        column = header[next(i for i, cell in enumerate(record) if "\0" in cell)]
        return Broken("D1-R02", f"not text: a NUL byte in the column {column!r}", place, raw)
    return RawRow(dict(zip(header, record, strict=True)), place, read)


def _why(error: csv.Error) -> tuple[str, str]:
    """Return the finding and the sentence."""
    text = str(error)
    if "field limit" in text:
        return "D1-R08", f"a field has over {_FIELD_LIMIT:,} characters"
    if "end of data" in text:
        text = "the quote is never closed"
    elif "expected after" in text:
        text = "text after a closing quote"
    return "D1-R07", f"broken quotes: {text}"
