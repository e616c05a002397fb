"""CSV and TSV: the delimiter is found, quotes are strict, and a bad row never eats the next."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from statistics import mode
from typing import IO

from tutelage.core.errors import DataError
from tutelage.data.readers.base import Broken, RawRow

_ENDINGS = (".csv", ".tsv", ".tab")
_FIELD_LIMIT = 64_000_000  # characters
_RECORD_LINES = 5000  # lines one quoted row may span before its quote counts as unclosed
_SAMPLE_LINES = 100


class CsvReader:
    """Reads .csv and .tsv with a header row, delimited by comma, semicolon, tab or bar."""

    def accepts(self, path: Path, head: bytes) -> bool:
        """Return whether the name ends like a table."""
        return path.suffix.lower() in _ENDINGS

    def read(self, path: Path, encoding: str) -> Iterator[RawRow | Broken]:
        """Yield one row a record; raise DataError if there is no usable header."""
        csv.field_size_limit(_FIELD_LIMIT)
        with path.open(encoding=encoding, errors="surrogateescape", newline="") as stream:
            delimiter = _delimiter(stream, path)
            stream.seek(0)
            records = _Records(stream, delimiter)
            header: list[str] | None = None
            for number, record in records:
                if isinstance(record, Broken):
                    yield record
                elif not any(record):
                    continue
                elif header is None:
                    header = _header(record, path)
                else:
                    yield _row(header, record, number, delimiter)


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
                yield start, Broken("D1-R07", f"broken quotes: {_why(error)}", str(start), raw)
                continue
            yield start, record

    def _lines(self) -> Iterator[str]:
        while True:
            if len(self._used) >= _RECORD_LINES:
                raise csv.Error("unexpected end of data")
            line = self._again.pop() if self._again else self._stream.readline()
            if not line:
                return
            self._used.append(line)
            self._line += 1
            yield line


def _delimiter(stream: IO[str], path: Path) -> str:
    """Return the delimiter that gives the most even rows over the first lines."""
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    lines = [line for _, line in zip(range(_SAMPLE_LINES), stream, strict=False)]
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


def _header(record: list[str], path: Path) -> list[str]:
    names = [name.strip().lstrip("\ufeff") for name in record]
    names = [name or f"column_{index}" for index, name in enumerate(names, start=1)]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise DataError(
            f"two columns are called {double!r}",
            where=f"{path.name}:1",
            fix="Give each column its own name in the first line",
        )
    return names


def _row(header: list[str], record: list[str], number: int, delimiter: str) -> RawRow | Broken:
    place = str(number)
    raw = delimiter.join(record)
    if len(record) != len(header):
        return Broken("D1-R06", f"{len(record)} columns instead of {len(header)}", place, raw)
    try:
        raw.encode()
    except UnicodeEncodeError as error:
        byte = ord(raw[error.start]) - 0xDC00
        return Broken("D1-R02", f"not UTF-8 text: byte 0x{byte & 0xFF:02x}", place, raw)
    return RawRow(dict(zip(header, record, strict=True)), place)


def _why(error: csv.Error) -> str:
    text = str(error)
    if "end of data" in text:
        return "the quote is never closed"
    if "expected after" in text:
        return "text after a closing quote"
    return text
