"""Sheets for Excel and its like: blind judgement forms out, filled ones back in.

A sheet shows texts and a random row name, never a candidate. Cells that a spreadsheet would run
as a formula are made inert. Reading checks one row at a time and says what is wrong with it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.errors import DataError, nearest
from tutelage.data.readers.base import RawRow
from tutelage.data.readers.files import encoding_of, head_of
from tutelage.data.readers.table import CsvReader
from tutelage.evaluation.human.rubric import Criterion

CELL = 32_000  # characters; Excel takes 32,767 and breaks what is longer
_CUT = " … [cut: too long for a spreadsheet]"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
PAIR = ("row", "input", "A", "B", "better", "comment", "seconds")
_BETTER = {
    "a": "left", "left": "left", "1": "left", "b": "right", "right": "right", "2": "right",
    "tie": "tie", "equal": "tie", "same": "tie", "=": "tie", "0": "tie",
}  # fmt: skip
_SKIP = ("skip", "?")
_LONGEST_S = 24 * 3600.0


@dataclass(frozen=True)
class Filled:
    """One filled row: `side` is left, right or tie; `levels` a place a criterion. Or a skip."""

    row: str
    line: str
    side: str | None = None
    levels: Mapping[str, int] = field(default_factory=dict)
    comment: str = ""
    seconds: float | None = None
    skip: bool = False


@dataclass(frozen=True)
class Problem:
    """One row that can't be used: its line, why, and the cells."""

    line: str
    why: str
    cells: Mapping[str, Any]


@dataclass
class Sheet:
    """A sheet that was read. `empty` rows have no judgement yet."""

    filled: list[Filled] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    empty: int = 0


def columns(criteria: Sequence[Criterion], *, reference: bool) -> tuple[str, ...]:
    """Return the columns of a sheet: a pairwise one without criteria, else a rubric's."""
    shown = ("reference",) if reference else ()
    if not criteria:
        return (*PAIR[:2], *shown, *PAIR[2:])
    named = tuple(criterion.name for criterion in criteria)
    return ("row", "input", *shown, "answer", *named, "comment", "seconds")


def write(names: Sequence[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    """Return a CSV as spreadsheets take it: UTF-8 with a byte-order mark, no live formulas."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    for row in rows:
        writer.writerow([inert(row.get(name, "")) for name in names])
    return stream.getvalue().encode("utf-8-sig")


def inert(text: str) -> str:
    """Return a cell that no spreadsheet runs and none breaks: a quote before =, +, -, @."""
    text = text.replace("\0", "")
    if len(text) > CELL:
        text = text[: CELL - len(_CUT)] + _CUT
    return f"'{text}" if text.startswith(_FORMULA) else text


def read(path: Path, criteria: Sequence[Criterion]) -> Sheet:
    """Read a filled sheet; delimiter and encoding are found.

    Raises DataError if the file can't be a sheet of this study at all.
    """
    sheet = Sheet()
    seen: dict[str, str] = {}
    needed = ["row", *([c.name for c in criteria] or ["better"])]
    checked = False
    for item in CsvReader().read(path, _encoding(path)):
        if not isinstance(item, RawRow):
            sheet.problems.append(Problem(item.line, item.detail, {"text": item.raw}))
            continue
        cells = {str(k).strip(): _text(v) for k, v in item.fields.items()}
        if not checked:
            _check_columns(path, cells, needed)
            checked = True
        found = _filled(cells, item.line, criteria)
        if found is None:
            sheet.empty += 1
        elif isinstance(found, Problem):
            sheet.problems.append(found)
        elif found.row in seen:
            why = f"row {found.row!r} stands in line {seen[found.row]} already"
            sheet.problems.append(Problem(item.line, why, cells))
        else:
            seen[found.row] = item.line
            sheet.filled.append(found)
    if not checked and not sheet.problems:
        raise DataError("the sheet has no rows", where=str(path), fix="Export it again")
    return sheet


def _encoding(path: Path) -> str:
    """Return the encoding; text that is no UTF-8 is what Excel writes on Windows."""
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="Check the path")
    encoding = encoding_of(head_of(path))
    if encoding is None:
        raise DataError(
            "this is no CSV file", where=str(path), fix="Save the sheet as CSV (UTF-8) and retry"
        )
    if encoding in ("utf-8", "utf-8-sig"):
        try:
            path.read_bytes().decode(encoding)
        except UnicodeDecodeError:
            return "cp1252"
    return encoding


def _check_columns(path: Path, cells: Mapping[str, str], needed: Sequence[str]) -> None:
    missing = next((name for name in needed if name not in cells), None)
    if missing is not None:
        near = nearest(missing, list(cells))
        hint = f" ({near!r} is the nearest)" if near else ""
        raise DataError(
            f"the column {missing!r} is missing{hint}",
            where=str(path),
            fix="Keep the first line of the exported sheet as it is, or name another --study",
        )


def _filled(
    cells: Mapping[str, str], line: str, criteria: Sequence[Criterion]
) -> Filled | Problem | None:
    """Return a row's judgement, what is wrong with it, or None if it has none yet."""
    answers = [cells.get(criterion.name, "") for criterion in criteria] or [cells["better"]]
    comment = cells.get("comment", "")
    if comment.startswith("'") and comment[1:].startswith(_FORMULA):
        comment = comment[1:]
    if not any(answers):
        return Problem(line, "it has a comment but no judgement", cells) if comment else None
    try:
        seconds = _seconds(cells.get("seconds", ""))
        if any(answer.casefold() in _SKIP for answer in answers):
            return Filled(cells["row"], line, comment=comment, seconds=seconds, skip=True)
        if not criteria:
            side = _side(answers[0])
            return Filled(cells["row"], line, side, {}, comment, seconds)
        levels = {
            criterion.name: criterion.level_of(answer)
            for criterion, answer in zip(criteria, answers, strict=True)
            if answer
        }
    except ValueError as error:
        return Problem(line, str(error), cells)
    lacking = next((c.name for c in criteria if c.name not in levels), None)
    if lacking is not None:
        return Problem(line, f"{lacking} is not marked", cells)
    return Filled(cells["row"], line, None, levels, comment, seconds)


def _side(word: str) -> str:
    found = _BETTER.get(word.strip().strip("'").casefold())
    if found is None:
        raise ValueError(f"better is {word!r}, not A, B or tie")
    return found


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        raise ValueError(f"seconds is {text!r}, not a number") from None
    if not 0 <= value <= _LONGEST_S:
        raise ValueError(f"seconds is {text}, not from 0 to a day")
    return value


def _text(value: Any) -> str:
    return str(value).strip() if value is not None else ""
