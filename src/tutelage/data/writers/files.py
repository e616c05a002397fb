"""Write rows to a file, whole or not at all: JSON lines in one pass, tables in two.

A table needs its columns before its first row, so its rows are asked for twice. Only one batch
of rows is held at a time.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tutelage.core.workspace import disk_errors, fsync_dir
from tutelage.data.readers.arrow import need_pyarrow
from tutelage.data.writers.rows import Row

_BATCH = 1000  # rows
_INT64 = 2**63
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode
Rows = Callable[[], Iterable[Row]]


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write to; it takes the target's place if all went well.

    What a killed process left behind is removed.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(target)
        temporary = target.parent / f".{target.name}.{os.getpid()}.part"
        try:
            yield temporary
            if temporary.exists():
                with temporary.open("rb") as stream:
                    os.fsync(stream.fileno())
                os.replace(temporary, target)
                fsync_dir(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _remove_left(target: Path) -> None:
    import psutil

    pattern = re.compile(re.escape(f".{target.name}.") + r"(\d+)\.part")
    for path in target.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match and not psutil.pid_exists(int(match[1])):
            path.unlink(missing_ok=True)


def json_line(row: Row) -> str:
    """Return a row as one line of JSON."""
    return _encode(row) + "\n"


def write_jsonl(target: Path, rows: Iterable[Row]) -> int:
    """Write one JSON object a line; return how many."""
    count = 0
    with replacing(target) as path, path.open("w", encoding="utf-8", newline="\n") as stream:
        for count, row in enumerate(rows, start=1):  # noqa: B007
            stream.write(json_line(row))
    return count


def write_csv(target: Path, rows: Rows) -> int:
    """Write a table with a header; lists and objects are written as JSON. Return the rows."""
    columns = list(_kinds(rows()))
    count = 0
    with replacing(target) as path, path.open("w", encoding="utf-8", newline="") as stream:
        minimal = csv.writer(stream, lineterminator="\n")
        quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        minimal.writerow(columns)
        for count, row in enumerate(rows(), start=1):  # noqa: B007
            cells = [_cell(row.get(column)) for column in columns]
            # csv leaves a lone carriage return bare, which ends a row when it is read
            (quoted if any("\r" in cell for cell in cells) else minimal).writerow(cells)
    return count


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _encode(value)


def write_parquet(target: Path, rows: Rows) -> int:
    """Write a Parquet file; return the rows. Raises EnvironmentProblem without pyarrow.

    Columns are text, integers, numbers or truth values where all rows agree; turns of role and
    content are a list of both; anything else is JSON text.
    """
    arrow = need_pyarrow()
    import pyarrow.parquet as parquet

    kinds = _kinds(rows())
    schema = arrow.schema([(name, _type(arrow, kind)) for name, kind in kinds.items()])
    count = 0
    with replacing(target) as path, parquet.ParquetWriter(path, schema) as writer:
        left = iter(rows())
        while batch := list(islice(left, _BATCH)):
            count += len(batch)
            held = [{n: _fitting(row.get(n), k) for n, k in kinds.items()} for row in batch]
            writer.write_table(arrow.Table.from_pylist(held, schema=schema))
    return count


def _type(arrow: Any, kind: str) -> Any:
    turns = arrow.list_(arrow.struct([("role", arrow.string()), ("content", arrow.string())]))
    known = {"int": arrow.int64(), "number": arrow.float64(), "bool": arrow.bool_()}
    return {**known, "turns": turns}.get(kind, arrow.string())


def _fitting(value: Any, kind: str) -> Any:
    if value is None or kind in ("int", "bool", "turns"):
        return value
    if kind == "number":
        return float(value)
    return value if isinstance(value, str) else _encode(value)


def _kinds(rows: Iterable[Row]) -> dict[str, str]:
    """Return the columns in the order they first come, each with the kind all its values have."""
    kinds: dict[str, str] = {}
    for row in rows:
        for name, value in row.items():
            before = kinds.setdefault(name, "")
            if value is not None and before != "json":
                kinds[name] = _joined(before, _kind(value))
    return kinds


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -_INT64 <= value < _INT64 else "json"
    if isinstance(value, float):
        return "number"
    return "turns" if _is_turns(value) else "json"


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(turn, dict)
        and list(turn) == ["role", "content"]
        and isinstance(turn["content"], str)
        for turn in value
    )


def _joined(one: str, two: str) -> str:
    if not one or one == two:
        return two
    return "number" if {one, two} == {"int", "number"} else "json"
