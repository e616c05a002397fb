"""JSON lines (one object a line) and JSON files that hold a list of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.core.errors import DataError
from tutelage.data.readers.base import Broken, RawRow

_ENDINGS = (".jsonl", ".ndjson", ".json")
_LINE_LIMIT = 64_000_000  # characters


class JsonlReader:
    """Reads .jsonl, .ndjson and .json; a .json file may hold one list instead of lines."""

    def accepts(self, path: Path, head: bytes) -> bool:
        """Return whether the name ends like JSON."""
        return path.suffix.lower() in _ENDINGS

    def read(self, path: Path, encoding: str) -> Iterator[RawRow | Broken]:
        """Yield one row a line (or list entry), a Broken for each that is not an object."""
        with path.open(encoding=encoding, errors="surrogateescape", newline="\n") as stream:
            start = stream.read(1024).lstrip()
            stream.seek(0)
            if start.startswith("["):
                yield from _entries(stream.read(), path)
                return
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _row(line, str(number))


def _row(line: str, place: str) -> RawRow | Broken:
    line = line.rstrip("\r\n")
    if len(line) > _LINE_LIMIT:
        return Broken("D1-R08", f"the line has {len(line):,} characters", place, line)
    try:
        line.encode()
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return Broken("D1-R02", _bad_byte(line, error.start), place, line)
    except json.JSONDecodeError as error:
        return Broken("D1-R01", f"not valid JSON: {_why(error)}", place, line)
    except ValueError as error:
        return Broken("D1-R08", f"a number is too long to read ({error})", place, line)
    except RecursionError:
        return Broken("D1-R08", "the line is nested too deeply", place, line)
    return _checked(value, place, line)


def _entries(text: str, path: Path) -> Iterator[RawRow | Broken]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        if path.suffix.lower() == ".json" or text.split("\n", 1)[0].strip() == "[":
            raise DataError(
                f"the JSON list is broken ({_why(error)})",
                where=path.name,
                fix="Correct it, or write one JSON object a line and name the file .jsonl",
            ) from error
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield _row(line, str(number))
        return
    for index, value in enumerate(values if isinstance(values, list) else [values], start=1):
        raw = json.dumps(value, ensure_ascii=False)
        try:
            raw.encode()
        except UnicodeEncodeError as error:
            yield Broken("D1-R02", _bad_byte(raw, error.start), f"#{index}", raw)
            continue
        yield _checked(value, f"#{index}", raw)


def _checked(value: Any, place: str, raw: str) -> RawRow | Broken:
    if isinstance(value, dict):
        return RawRow(value, place)
    kinds = {list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    kind = kinds.get(type(value), "a number")
    return Broken("D1-R03", f"the line holds {kind}, not an object", place, raw)


def _bad_byte(line: str, at: int) -> str:
    point = ord(line[at]) if at < len(line) else 0
    shown = f"byte 0x{point - 0xDC00:02x}" if 0xDC80 <= point <= 0xDCFF else "half a character"
    return f"not UTF-8 text: {shown} at column {at + 1}"


def _why(error: Exception) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    message = error.msg[0].lower() + error.msg[1:]
    line = f"line {error.lineno} " if error.lineno > 1 else ""
    return f"{message} at {line}column {error.colno}"
