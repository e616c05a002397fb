"""Write-ahead files of the request log: a record is in one before its client sees the answer.

One JSON object a line behind a header that says up to where the store has them. The kernel has
what was written, so a killed process loses nothing; against a power cut the store's commit helps,
which follows within a fraction of a second. Files of dead processes are read by whoever is next.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from tutelage.serving.wire.fast_json import decode, encode
from tutelage.store.base import UTCDateTime
from tutelage.store.records import RecordRow

_MAGIC = b"tutelage-log 1 "
_HEADER = len(_MAGIC) + 17  # sixteen digits and a line feed
_SEGMENT = 4 * 2**20  # bytes; then a new file is begun
_TIDY = 256 * 1024  # a file smaller than this is emptied only when nothing happens
_log = logging.getLogger(__name__)

Row = dict[str, Any]


def encode_row(row: Mapping[str, Any]) -> bytes:
    """Return `row` as one line of ASCII JSON, times in ISO 8601."""
    return encode(row) + b"\n"


def decode_row(line: bytes) -> Row:
    """Return the row of a line as `encode_row` got it. Raises ValueError."""
    found = decode(line)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    columns = RecordRow.__table__.columns  # another version may have written other ones
    row = {name: value for name, value in found.items() if name in columns}
    for name, value in row.items():
        if value is not None and isinstance(columns[name].type, UTCDateTime):
            row[name] = datetime.fromisoformat(value)
    return row


@dataclass(slots=True, eq=False)
class Place:
    """Where a row stands: bytes `start` to `end` of a segment."""

    segment: _Segment
    start: int
    end: int


class Spill:
    """This process's write-ahead files in `folder`, at most `limit` bytes of them.

    `append` is the event loop's, the rest is the writer thread's.
    """

    def __init__(self, folder: Path, *, limit: int = 256 * 2**20) -> None:
        self.folder, self.limit = folder, limit
        self._lock = threading.Lock()
        self._segments: list[_Segment] = []  # the last one is written to

    @property
    def size(self) -> int:
        """Bytes in this process's files."""
        return sum(segment.size for segment in self._segments)

    def append(self, line: bytes) -> Place | None:
        """Write a line; return where it stands, or None if the disk or the limit is full."""
        with self._lock:
            if self.size + len(line) > self.limit:
                return None
            try:
                if not self._segments or self._segments[-1].size > _SEGMENT:
                    self._segments.append(_Segment.create(self.folder))
                return self._segments[-1].append(line)
            except OSError as error:
                _log.warning("a record could not be written ahead: %s", error)
                return None

    def read(self, place: Place) -> bytes:
        """Return the line at `place`."""
        with self._lock:
            return place.segment.read(place.start, place.end)

    def done(self, places: Sequence[Place], *, idle: bool = False) -> None:
        """Note that the store has these rows; files of which it has all are emptied or removed.

        With `idle`, the file in use is emptied however small it is.
        """
        with self._lock:
            for segment in {place.segment.path: place.segment for place in places}.values():
                segment.forget(place for place in places if place.segment is segment)
            emptied = [segment for segment in self._segments[:-1] if not segment.waiting]
            self._segments = [s for s in self._segments if s not in emptied]
            if self._segments:
                self._segments[-1].tidy(0 if idle else _TIDY)
        for segment in emptied:  # takes milliseconds, for which no request need wait
            segment.remove()

    def leftovers(self, group: int) -> Iterator[list[Row]]:
        """Yield the rows that dead processes left, at most `group` at a time.

        The rows of one turn must be in the store when the next is asked for.
        """
        own = {segment.path for segment in self._segments}
        for path in sorted(self.folder.glob("*.ahead")):
            if path in own:
                continue
            with contextlib.suppress(FileNotFoundError), path.open("r+b", buffering=0) as handle:
                if not _hold(handle):
                    continue  # its process lives
                for rows, end in _unread(path, group):
                    yield rows
                    with contextlib.suppress(OSError):  # then they are offered once more
                        _write(handle, 0, _header(end))
                with contextlib.suppress(OSError):
                    path.unlink()

    def close(self) -> None:
        """Remove what the store has; what it lacks stays for the next process."""
        with self._lock:
            for segment in self._segments:
                if segment.waiting:
                    segment.handle.close()
                else:
                    segment.remove()
            self._segments.clear()


@dataclass(eq=False)
class _Segment:
    path: Path
    handle: IO[bytes]
    size: int = _HEADER
    waiting: dict[int, int] = field(default_factory=dict)  # start -> end, not in the store yet

    @classmethod
    def create(cls, folder: Path) -> _Segment:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{os.getpid()}-{secrets.token_hex(4)}.ahead"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        handle = os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)
        try:
            _hold(handle)
            _write(handle, 0, _header(_HEADER))
        except OSError:
            handle.close()
            path.unlink(missing_ok=True)
            raise
        return cls(path, handle)

    def append(self, line: bytes) -> Place:
        try:
            _write(self.handle, self.size, line)
        except OSError:
            with contextlib.suppress(OSError):
                self.handle.truncate(self.size)  # no half line is left behind
            raise
        place = Place(self, self.size, self.size + len(line))
        self.waiting[place.start] = place.end
        self.size = place.end
        return place

    def read(self, start: int, end: int) -> bytes:
        self.handle.seek(start)
        return self.handle.read(end - start)

    def forget(self, places: Iterable[Place]) -> None:
        for place in places:
            self.waiting.pop(place.start, None)
        self._mark(next(iter(self.waiting), self.size))

    def tidy(self, least: int) -> None:
        """Empty the file if the store has all of it and it is larger than `least` bytes."""
        if not self.waiting and self.size > _HEADER + least:
            try:
                self.handle.truncate(_HEADER)
            except OSError:
                return
            self.size = _HEADER
            self._mark(_HEADER)

    def remove(self) -> None:
        self.handle.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _mark(self, offset: int) -> None:
        with contextlib.suppress(OSError):  # then rows are offered to the store a second time
            _write(self.handle, 0, _header(offset))


def _unread(path: Path, group: int) -> Iterator[tuple[list[Row], int]]:
    """Yield the rows behind the header's mark, and where in the file the last of them ends."""
    with path.open("rb") as lines:
        end = _marked(lines.read(_HEADER))
        lines.seek(end)
        rows: list[Row] = []
        for line in lines:
            end += len(line)
            try:
                rows.append(decode_row(line))
            except ValueError:
                _log.warning("a line of the write-ahead log is damaged and was left out")
            if len(rows) >= group:
                yield rows, end
                rows = []
        if rows:
            yield rows, end


def _marked(header: bytes) -> int:
    """Return the offset that a header names; behind the header if it is damaged."""
    try:
        return max(_HEADER, int(header.removeprefix(_MAGIC)))
    except ValueError:
        return _HEADER


def _header(offset: int) -> bytes:
    return _MAGIC + f"{offset:016d}\n".encode()


def _write(handle: IO[bytes], offset: int, data: bytes) -> None:
    """Write all of `data` at `offset`; raise OSError if the disk takes only a part."""
    if hasattr(os, "pwrite"):
        written = os.pwrite(handle.fileno(), data, offset)
    else:  # Windows
        handle.seek(offset)
        written = handle.write(data)
    if written != len(data):
        raise OSError("the disk took only a part of the line")


def _hold(handle: IO[bytes]) -> bool:
    """Return whether this process could lock the file; it is free again when the process ends."""
    try:
        import fcntl
    except ImportError:  # Windows: a file that is open can't be removed there
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
