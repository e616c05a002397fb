"""JSON lines (one object a line) and JSON files: one list, or one object around a list.

Both are read piece by piece, so that a file of any size takes the memory of one row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tutelage.data.readers.base import Broken, Item, RawRow
from tutelage.data.readers.json_stream import BadJson, Window, read_values

_ENDINGS = (".jsonl", ".ndjson", ".json")
_LINE_LIMIT = 64_000_000  # characters
_TELL_EVERY = 256  # rows between two looks at how much of the file was read
_START = 65_536  # characters looked at to tell lines from a list


class JsonlReader:
    """Reads .jsonl, .ndjson and .json: objects line by line, one list, or an object with one."""

    def accepts(self, path: Path, head: bytes) -> bool:
        """Return whether the name ends like JSON."""
        return path.suffix.lower() in _ENDINGS

    def read(self, path: Path, encoding: str) -> Iterator[Item]:
        """Yield one row a line (or list entry), a Broken for each that is not an object."""
        with path.open(encoding=encoding, errors="surrogateescape", newline="\n") as stream:
            start = stream.read(_START)
            stream.seek(0)
            if _in_lines(start, path):
                yield from _lines(stream)
            else:
                yield from _entries(stream)


def _in_lines(start: str, path: Path) -> bool:
    """Return whether each line stands for itself; `start` is the beginning of the text."""
    text = start.lstrip("\ufeff \t\r\n")
    line, newline, rest = text.partition("\n")
    line = line.strip()
    if line in ("[", "{"):
        return False
    whole = bool(newline) or len(start) < _START
    is_json = path.suffix.lower() == ".json"
    if whole and _parses(line):
        return bool(rest.strip()) or not (is_json or line.startswith("["))
    if line.startswith("["):
        return whole and not is_json and not line.endswith(",")
    return not is_json or not line.startswith("{")


def _parses(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(stream: IO[str]) -> Iterator[Item]:
    number, read = 0, 0
    while line := stream.readline(_LINE_LIMIT):
        number += 1
        if len(line) >= _LINE_LIMIT and not line.endswith("\n"):
            size = len(line) + _skip_line(stream)
            yield Broken("D1-R08", f"the line has {size:,} characters", str(number), line[:2000])
            continue
        if not line.strip():
            continue
        if number % _TELL_EVERY == 0:
            read = _read_so_far(stream)
        yield _row(line, str(number), read)


def _skip_line(stream: IO[str]) -> int:
    """Read on to the end of a line without keeping it; return its characters."""
    size = 0
    while part := stream.readline(_START):
        size += len(part)
        if part.endswith("\n"):
            break
    return size


def _read_so_far(stream: Any) -> int:
    """Return how many bytes of the file were read."""
    return int(stream.buffer.tell())


def _row(line: str, place: str, read: int) -> RawRow | Broken:
    line = line.rstrip("\r\n").lstrip("\ufeff")
    try:
        line.encode()
        value = json.loads(line)
        if "\\u" in line:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return Broken("D1-R02", _bad_byte(line, error.start), place, line)
    except json.JSONDecodeError as error:
        return Broken("D1-R01", f"not valid JSON: {_why(error)}", place, line)
    except ValueError as error:
        return Broken("D1-R08", f"a number is too long to read ({error})", place, line)
    except RecursionError:
        return Broken("D1-R08", "the line is nested too deeply", place, line)
    return _checked(value, place, line, read)


def _entries(stream: IO[str]) -> Iterator[Item]:
    """Yield the entries of a list, or of the list in an object, as they come."""
    window = Window(stream, _LINE_LIMIT)
    for index, value in enumerate(read_values(window), start=1):
        place, raw = f"#{index}", window.raw
        if isinstance(value, BadJson):
            yield Broken(value.finding_id, value.detail, place, value.raw)
            continue
        try:
            raw.encode()
            if "\\u" in raw or not raw.startswith("{"):  # half a character, or members of a row
                raw = json.dumps(value, ensure_ascii=False)
                raw.encode()
        except UnicodeEncodeError as error:
            yield Broken("D1-R02", _bad_byte(raw, error.start), place, raw)
            continue
        read = _read_so_far(stream) if index % _TELL_EVERY == 0 else 0
        yield _checked(value, place, raw, read)


def _checked(value: Any, place: str, raw: str, read: int) -> RawRow | Broken:
    if isinstance(value, dict):
        return RawRow(value, place, read)
    kinds = {list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    kind = kinds.get(type(value), "a number")
    what = "entry" if place.startswith("#") else "line"
    return Broken("D1-R03", f"the {what} holds {kind}, not an object", place, raw)


def _bad_byte(line: str, at: int) -> str:
    point = ord(line[at]) if at < len(line) else 0
    shown = f"byte 0x{point - 0xDC00:02x}" if 0xDC80 <= point <= 0xDCFF else "half a character"
    return f"not UTF-8 text: {shown} at column {at + 1}"


def _why(error: json.JSONDecodeError) -> str:
    message = error.msg[0].lower() + error.msg[1:]
    if "control character" in message and error.doc[error.pos : error.pos + 1] == "\0":
        message = "a NUL byte"
    line = f"line {error.lineno} " if error.lineno > 1 else ""
    return f"{message} at {line}column {error.colno}"
