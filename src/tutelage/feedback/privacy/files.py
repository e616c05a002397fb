"""Files without one user: lines, objects and tables that hold something of theirs.

JSON lines and tables lose rows, JSON loses the parts; a report or another text that quotes the
user is removed, because it can be made again. Every file is written whole or not at all. What
is not written here is named: Parquet and Arrow with the number of rows, and what can't be looked
into (databases of other tools, archives) if it holds the user's key.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.errors import TutelageError
from tutelage.core.workspace import atomic_write
from tutelage.data.readers.base import RawRow
from tutelage.data.readers.files import encoding_of, head_of, reader_for
from tutelage.feedback.privacy.traces import GONE, LONG_KEY, Traces

_LINES = (".jsonl", ".ndjson")
_TABLES = {".csv": ",", ".tsv": "\t"}
_COLUMNS = (".parquet", ".arrow", ".feather")
_TEXTS = (".html", ".htm", ".txt", ".md", ".log", ".yaml", ".yml", ".svg")
_WEIGHTS = (".safetensors", ".gguf", ".npz", ".npy", ".bin", ".pt", ".ahead")
_LARGEST = 2**31  # bytes of a file that is looked through


@dataclass
class Swept:
    """What was found in files: rows taken out by file, texts removed, and what is left to do."""

    rows: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)


def sweep(
    paths: Iterable[Path],
    traces: Traces,
    root: Path,
    *,
    remove_texts: bool,
    dry_run: bool = False,
) -> Swept:
    """Take what is the user's out of `paths`; `remove_texts` removes reports that quote them."""
    done = Swept()
    for path in paths:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        try:
            _sweep_one(path, name, traces, done, remove_texts, dry_run)
        except (OSError, ValueError, csv.Error, TutelageError) as error:
            done.remains.append(f"{name} (can't be read: {error})")
    return done


def files_under(folder: Path, leave: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield the files under `folder`, but none of those in the folders `leave`."""
    left = {path.resolve() for path in leave}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink() and left.isdisjoint(path.resolve().parents):
            yield path


def _sweep_one(
    path: Path, name: str, traces: Traces, done: Swept, remove_texts: bool, dry_run: bool
) -> None:
    ending = path.suffix.lower()
    if ending in _WEIGHTS or path.stat().st_size > _LARGEST:
        return
    if ending in (*_LINES, *_TABLES) and encoding_of(head_of(path)) not in ("utf-8", "utf-8-sig"):
        raise ValueError("not UTF-8 text")
    if ending in _LINES:
        found, data = _lines(path, traces)
    elif ending in _TABLES:
        found, data = _table(path, traces, _TABLES[ending])
    elif ending == ".json":
        found, data = _json(path, traces)
    elif ending in _TEXTS:
        found, data = _text(path, traces), None
        if found and not remove_texts:
            done.remains.append(f"{name} (a text that names or quotes the user)")
            return
    elif ending in _COLUMNS:
        if rows := _columnar(path, traces):
            done.remains.append(f"{name} ({rows:,} rows, to be taken out of the file by hand)")
        return
    else:
        if traces.user.encode() in path.read_bytes() and len(traces.user) >= LONG_KEY:
            done.remains.append(f"{name} (holds the user's key)")
        return
    if not found:
        return
    if data is None:
        done.removed.append(name)
    else:
        done.rows[name] = found
    if not dry_run:
        path.unlink() if data is None else _replace(path, data)


def _replace(path: Path, data: bytes) -> None:
    if path.parent.name == "logs":  # a running gateway goes on writing to this file
        with path.open("r+b") as stream:
            stream.write(data)
            stream.truncate()
    else:
        mode = path.stat().st_mode & 0o777
        atomic_write(path, data)
        path.chmod(mode)


def _lines(path: Path, traces: Traces) -> tuple[int, bytes | None]:
    kept, found = [], 0
    with path.open("rb") as stream:
        for line in stream:
            if _line_is_theirs(line, traces):
                found += 1
            else:
                kept.append(line)
    return found, b"".join(kept)


def _line_is_theirs(line: bytes, traces: Traces) -> bool:
    text = line.decode("utf-8-sig", "replace")
    try:
        value = json.loads(text)
    except ValueError:
        return traces.in_text(text)
    return traces.holds(value)


def _table(path: Path, traces: Traces, comma: str) -> tuple[int, bytes | None]:
    """Return the rows that go, and the others byte for byte as they were."""
    text = path.read_bytes().decode("utf-8-sig")
    reader = _Tapped(io.StringIO(text, newline=""))
    rows = csv.reader(reader, delimiter=comma)
    header = next(rows, None)
    if header is None:
        return 0, None
    kept, found = [reader.taken()], 0
    for row in rows:
        raw = reader.taken()
        if any(traces.in_value(name, cell) for name, cell in zip(header, row, strict=False)):
            found += 1
        else:
            kept.append(raw)
    return found, "".join(kept).encode()


class _Tapped:
    """Lines of a text, remembered until they are asked for."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream, self._seen = stream, ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._stream)
        self._seen += line
        return line

    def taken(self) -> str:
        """Return the lines since the last time."""
        seen, self._seen = self._seen, ""
        return seen


def _columnar(path: Path, traces: Traces) -> int:
    """Return how many rows of a compressed file are theirs; raise ValueError if it is damaged."""
    reader, found = reader_for(path), 0
    for row in reader.read(path, "") if reader is not None else ():
        if isinstance(row, RawRow):
            found += traces.holds(row.fields)
        elif not row.line:  # it is about the whole file
            raise ValueError(row.detail)
    return found


def _json(path: Path, traces: Traces) -> tuple[int, bytes | None]:
    value = json.loads(path.read_bytes())
    left = traces.prune(value)
    if left is value:
        return 0, b""
    if left is GONE:
        return 1, None
    return max(1, _size(value) - _size(left)), (
        json.dumps(left, ensure_ascii=False) + "\n"
    ).encode()


def _size(value: Any) -> int:
    """Return the number of things that stand in lists."""
    if isinstance(value, list):
        return len(value) + sum(map(_size, value))
    return sum(map(_size, value.values())) if isinstance(value, dict) else 0


def _text(path: Path, traces: Traces) -> int:
    text = path.read_text(encoding="utf-8", errors="replace")
    return int(traces.in_text(text) or traces.in_text(html.unescape(text)))
