"""Parquet files, Arrow files, and data sets that the `datasets` library saved to a folder.

Rows are read in batches. Class labels become their names, times ISO 8601, bytes text; images and
sound are left out with a note. Needs pyarrow (the extra `tables`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tutelage.core.errors import EnvironmentProblem
from tutelage.data.readers.base import Broken, Item, RawRow

_BATCH = 512  # rows
_MEDIA = ("Image", "Audio", "Video")
Convert = Callable[[Any], Any]


class ParquetReader:
    """Reads .parquet and .pq, nested types too."""

    binary = True

    def __init__(self) -> None:
        self.notes: list[str] = []

    def accepts(self, path: Path, head: bytes) -> bool:
        """Return whether the name ends like Parquet or the file begins like it."""
        return path.suffix.lower() in (".parquet", ".pq") or head.startswith(b"PAR1")

    def read(self, path: Path, encoding: str) -> Iterator[Item]:
        """Yield the rows; a file that is no Parquet gives one Broken."""
        arrow = need_pyarrow()
        import pyarrow.parquet as parquet

        try:
            with parquet.ParquetFile(path) as file:
                total = max(1, file.metadata.num_rows)
                batches = file.iter_batches(batch_size=_BATCH)
                size = path.stat().st_size / total
                yield from rows_of(batches, file.schema_arrow, self.notes, bytes_a_row=size)
        except (arrow.ArrowException, OSError) as error:
            yield _unreadable("Parquet", error)


class ArrowReader:
    """Reads .arrow and .feather; the files of a data set saved with save_to_disk among them."""

    binary = True

    def __init__(self) -> None:
        self.notes: list[str] = []

    def accepts(self, path: Path, head: bytes) -> bool:
        """Return whether the name ends like Arrow."""
        return path.suffix.lower() in (".arrow", ".feather")

    def read(self, path: Path, encoding: str) -> Iterator[Item]:
        """Yield the rows, each with the split whose folder the file lies in."""
        arrow = need_pyarrow()
        more = _split_of(path)
        try:
            with arrow.memory_map(str(path)) as source:
                reader, batches = _open(arrow, source)
                small = (part for batch in batches for part in _sliced(batch))
                yield from rows_of(small, reader.schema, self.notes, more)
        except (arrow.ArrowException, OSError) as error:
            yield _unreadable("Arrow", error)


def need_pyarrow() -> Any:
    """Return pyarrow; raise EnvironmentProblem if it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise EnvironmentProblem(
            "reading and writing Parquet and Arrow files needs pyarrow",
            fix="Run `pip install 'tutelage[tables]'`",
        ) from error
    return pyarrow


def _open(arrow: Any, source: Any) -> tuple[Any, Iterable[Any]]:
    """Return the reader of an Arrow stream or file, and its batches."""
    try:
        stream = arrow.ipc.open_stream(source)
    except arrow.ArrowInvalid:
        source.seek(0)
        file = arrow.ipc.open_file(source)
        return file, (file.get_batch(index) for index in range(file.num_record_batches))
    return stream, stream


def _sliced(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, _BATCH):
        yield batch.slice(start, _BATCH)


def _split_of(path: Path) -> dict[str, str]:
    """Return {"split": name} for a file of a data set with several splits."""
    several = (path.parent.parent / "dataset_dict.json").is_file()
    return {"split": path.parent.name} if several else {}


def _unreadable(kind: str, error: Exception) -> Broken:
    first = (str(error).splitlines() or ["no reason given"])[0][:160]
    return Broken("D1-R10", f"the file is not readable as {kind} ({first})", "", "")


def rows_of(
    batches: Iterable[Any],
    schema: Any,
    notes: list[str],
    more: Mapping[str, str] | None = None,
    bytes_a_row: float = 0.0,
) -> Iterator[Item]:
    """Yield the rows of record batches as plain JSON values; `more` is added to each."""
    converts, left_out = _converters(schema)
    if left_out:
        notes.append(f"{', '.join(left_out)} left out: only text is read")
    number = 0
    for batch in batches:
        columns = [
            (name, batch.column(index).to_pylist(), converts[name])
            for index, name in enumerate(batch.schema.names)
            if name not in left_out
        ]
        for row in range(batch.num_rows):
            number += 1
            fields = {n: convert(v[row]) if convert else v[row] for n, v, convert in columns}
            if more:
                fields = {**more, **fields}
            yield RawRow(fields, f"#{number}", int(number * bytes_a_row))


def _converters(schema: Any) -> tuple[dict[str, Convert | None], list[str]]:
    """Return how the values of each column become plain, and the columns that can't."""
    import pyarrow as arrow

    features = _features(schema)
    converts: dict[str, Convert | None] = {}
    left_out = []
    for field in schema:
        feature = features.get(field.name)
        if isinstance(feature, dict) and feature.get("_type") in _MEDIA:
            left_out.append(field.name)
        names = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(names, list) and arrow.types.is_integer(field.type):
            converts[field.name] = _named(names)
        else:
            converts[field.name] = None if _is_plain(field.type) else plain
    return converts, left_out


def _features(schema: Any) -> dict[str, Any]:
    """Return what the `datasets` library noted about the columns."""
    noted = (schema.metadata or {}).get(b"huggingface")
    try:
        found = json.loads(noted)["info"]["features"] if noted else {}
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(names: list[str]) -> Convert:
    def convert(value: Any) -> Any:
        known = isinstance(value, int) and 0 <= value < len(names)
        return names[value] if known else None

    return convert


def _is_plain(kind: Any) -> bool:
    """Return whether values of a type come out as text, numbers or truth values."""
    import pyarrow.types as types

    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_integer(kind)
        or types.is_boolean(kind)
    )


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {str(key): plain(inner) for key, inner in value}  # a map
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode("ascii")
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)
