"""Who gave what to which item: the matrix that agreement is computed on, and how a file fills it.

Columns of a table (one a rater) or one row an answer. It computes no coefficient.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import DataError, did_you_mean

Level = Literal["nominal", "ordinal", "interval"]
LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval")

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Ratings:
    """R raters' categories for N items. `codes` holds positions in `categories`, -1: no answer.

    The order of `categories` is the order of an ordinal scale.
    """

    raters: tuple[str, ...]  # R
    categories: tuple[str, ...]  # K
    items: tuple[str, ...]  # N
    codes: Codes  # (R, N)

    def values(self) -> NDArray[np.float64]:
        """Return the categories as numbers, shape (K,); raise DataError if one is not a number."""
        return np.array([_number(name) for name in self.categories], dtype=np.float64)

    def counts(self) -> NDArray[np.float64]:
        """Return how many raters gave each category to each item, shape (N, K)."""
        return count_codes(self.codes, len(self.categories))

    def pair(self, first: int, second: int) -> Ratings:
        """Return two raters and the items both answered."""
        rows = self.codes[[first, second]]
        both = (rows >= 0).all(axis=0)
        items = tuple(self.items[index] for index in np.flatnonzero(both))
        names = (self.raters[first], self.raters[second])
        return Ratings(names, self.categories, items, rows[:, both])


def count_codes(codes: Codes, k: int) -> NDArray[np.float64]:
    """Return the number of raters per item and category, shape (N, K), of codes (R, N)."""
    counts = np.zeros((codes.shape[1], k))
    rater, item = np.nonzero(codes >= 0)
    np.add.at(counts, (item, codes[rater, item]), 1.0)
    return counts


def encode(
    columns: Mapping[str, Sequence[str | None]],
    *,
    order: Sequence[str] = (),
    items: Sequence[str] = (),
) -> Ratings:
    """Return the matrix of columns of equal length; None is no answer.

    Categories stand in `order`; without one by number if all are numbers, else by name.
    Raises DataError if a value is not in `order`.
    """
    seen = sorted({value for column in columns.values() for value in column if value is not None})
    if order:
        odd = next((value for value in seen if value not in order), None)
        if odd is not None:
            raise DataError(
                f"the value {odd!r} is not in the order {', '.join(order)}",
                fix="Name every value that occurs, lowest first",
            )
        categories = list(order)
    else:
        categories = sorted(seen, key=_sort_key(seen))
    place = {name: index for index, name in enumerate(categories)}
    codes = np.array(
        [[-1 if v is None else place[v] for v in column] for column in columns.values()],
        dtype=np.int64,
    )
    count = codes.shape[1] if codes.ndim == 2 else 0
    names = tuple(items) or tuple(str(index + 1) for index in range(count))
    return Ratings(tuple(columns), tuple(categories), names, codes.reshape(len(columns), count))


def encode_long(answers: Iterable[tuple[str, str, str]], *, order: Sequence[str] = ()) -> Ratings:
    """Return the matrix of (item, rater, value) answers; a later answer replaces an earlier one."""
    by_rater: dict[str, dict[str, str]] = {}
    items: dict[str, None] = {}
    for item, rater, value in answers:
        by_rater.setdefault(rater, {})[item] = value
        items[item] = None
    columns = {rater: [by_rater[rater].get(item) for item in items] for rater in sorted(by_rater)}
    return encode(columns, order=order, items=list(items))


def read_columns(path: Path, names: Sequence[str], *, order: Sequence[str] = ()) -> Ratings:
    """Return the matrix of a table's columns, one a rater.

    Reads CSV, TSV, JSON lines, a JSON list of objects, or a JSON object of objects by id.
    Raises DataError for a missing column (with the nearest), or fewer than two of them.
    """
    if len(set(names)) < 2:
        raise DataError(
            "agreement needs at least two columns",
            where=path.name,
            fix="Name one column a rater: --columns anna,ben",
        )
    rows = _rows(path)
    _require(rows, names, path)
    columns = {name: [_cell(row.get(name)) for _, row in rows] for name in names}
    return encode(columns, order=order, items=[item for item, _ in rows])


def read_long(path: Path, names: Sequence[str], *, order: Sequence[str] = ()) -> Ratings:
    """Return the matrix of a file with one row an answer; `names`: item, rater, value."""
    if len(names) != 3:
        raise DataError(
            "three columns are needed: the item, who answered, and the answer",
            where=path.name,
            fix="Name them in that order: --long item,annotator,label",
        )
    rows = _rows(path)
    _require(rows, names, path)
    cells = [tuple(_cell(row.get(name)) for name in names) for _, row in rows]
    whole = [(a, b, c) for a, b, c in cells if a is not None and b is not None and c is not None]
    return encode_long(whole, order=order)


def _require(
    rows: Sequence[tuple[str, Mapping[str, Any]]], names: Sequence[str], path: Path
) -> None:
    known = list(dict.fromkeys(key for _, row in rows for key in row))
    missing = next((name for name in names if name not in known), None)
    if missing is not None:
        hint = did_you_mean(missing, known)
        raise DataError(
            f"there is no column {missing!r}",
            where=path.name,
            fix=f"{hint}It has: {', '.join(known[:12]) or 'none'}",
        )


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, fields) of every row of a file."""
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="Check the path")
    if path.suffix.lower() == ".json":
        whole = _whole_json(path)
        if whole is not None:
            return whole
    from tutelage.data.readers.base import Broken
    from tutelage.data.readers.jsonl import JsonlReader
    from tutelage.data.readers.table import CsvReader

    reader = next((r for r in (CsvReader(), JsonlReader()) if r.accepts(path, b"")), None)
    if reader is None:
        raise DataError(
            f"there is no reader for {path.suffix or 'files without an ending'}",
            where=path.name,
            fix="Bring the answers as .csv, .tsv, .jsonl or .json",
        )
    found = []
    for item in reader.read(path, "utf-8-sig"):
        if isinstance(item, Broken):
            raise DataError(item.detail, where=f"{path.name}:{item.line}", fix="Correct the line")
        found.append((str(item.line), item.fields))
    return found


def _whole_json(path: Path) -> list[tuple[str, dict[str, Any]]] | None:
    """Return the rows of {"id": {...}, ...}; None if the file has another form."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
        return [(str(key), dict(row)) for key, row in value.items()]
    return None


def _cell(value: Any) -> str | None:
    """Return a cell as a category: numbers plain, nothing for empty ones."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.strip() or None


def _sort_key(names: Sequence[str]) -> Any:
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return str
    return numbers.__getitem__


def _number(name: str) -> float:
    try:
        return float(name)
    except ValueError as error:
        raise DataError(
            f"the value {name!r} is not a number, so it has no place on an interval scale",
            fix="Use --level nominal, or --level ordinal with --order",
        ) from error
