"""Rows that a benchmark holds: read the benchmark's files, and find what resembles their texts.

A row matches if its input is the same or nearly the same (as in the leak certificate), or if row
and benchmark share a long run of words: 13 of them, or the whole of a benchmark text of 8 to 12
(the n-gram overlap of Brown et al. 2020, arXiv 2005.14165, appendix C, whose n is 8 to 13 too).
Runs that more than ten rows have are boilerplate and count for nothing, as there.
"""

from __future__ import annotations

import glob
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tutelage.core.config import Columns
from tutelage.core.errors import DataError
from tutelage.core.example import Example, normalise
from tutelage.core.output import OutputFormat
from tutelage.data.findings import reason
from tutelage.data.leakage import find_twins
from tutelage.data.pipeline import Dropped

LONGEST, SHORTEST = 13, 8  # words of a run
BOILERPLATE = 10  # rows that may have a run before it counts for nothing
_WORD = re.compile(r"\w+")
_SHOWN = 60  # characters of a run that are quoted

How = Literal["exact", "near", "overlap"]


@dataclass(frozen=True)
class BenchmarkText:
    """One text of a benchmark and its place, file:line."""

    text: str
    place: str


@dataclass(frozen=True)
class Match:
    """A row (its position) and the benchmark text it resembles. `detail` says how much."""

    row: int
    how: How
    place: str
    detail: str

    @property
    def sentence(self) -> str:
        """The match as people read it."""
        verb = {
            "exact": "the same as",
            "near": "nearly the same as",
            "overlap": "shares words with",
        }
        return f"{verb[self.how]} {self.place}{self.detail}"


def read_benchmarks(root: Path, patterns: Sequence[str]) -> list[BenchmarkText]:
    """Return the texts of every file that matches `patterns`, relative to `root`.

    Raises DataError if a pattern matches no file or a file holds no text.
    """
    texts: list[BenchmarkText] = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207
        names = [name for name in found if (root / name).is_file()]
        if not names:
            raise DataError(
                f"no file matches {pattern!r}",
                where="data.benchmarks",
                fix="Correct the path; it is relative to the project",
            )
        for name in names:
            texts += read_benchmark(root / name, name)
    return texts


def read_benchmark(path: Path, name: str = "", *, answers: bool = True) -> list[BenchmarkText]:
    """Return the texts of one file: a line each of .txt, the inputs and long answers of rows.

    Where no input is found in a row, all its text fields count. Without `answers` only inputs are
    read. Raises DataError if the file can't be read or holds no text.
    """
    name = name or str(path)
    if not path.is_file():
        raise DataError("there is no such file", where=name, fix="Check the path")
    is_text = path.suffix.lower() == ".txt"
    found = list(_lines(path, name) if is_text else _rows(path, name, answers))
    texts = [item for item in found if _WORD.search(item.text)]
    if not texts:
        raise DataError(
            "the benchmark holds no text", where=name, fix="Bring .txt, .jsonl or .csv in UTF-8"
        )
    return texts


def find_matches(rows: Sequence[Example], texts: Sequence[BenchmarkText]) -> list[Match]:
    """Return at most one match a row, the strongest: exact before near before overlap."""
    from tutelage.data.dedup.tfidf import vectorise

    inputs, held = [row.input_text for row in rows], [item.text for item in texts]
    ours, theirs = vectorise(inputs, held)
    found: dict[int, Match] = {}
    for row, pair in find_twins(inputs, held, ours, theirs).of_train.items():
        same = normalise(inputs[row]) == normalise(held[pair.test])
        detail = "" if same else f" (cosine {pair.cosine:.2f})"
        how: How = "exact" if same else "near"
        found[row] = Match(row, how, texts[pair.test].place, detail)
    for match in _overlaps(rows, texts):
        found.setdefault(match.row, match)
    return [found[index] for index in sorted(found)]


def without_matches(
    rows: Sequence[Example], texts: Sequence[BenchmarkText]
) -> tuple[list[Example], list[Dropped]]:
    """Return the rows that no benchmark text resembles, and the others with the reason."""
    found = {match.row: match for match in find_matches(rows, texts)}
    kept = [row for index, row in enumerate(rows) if index not in found]
    dropped = [
        Dropped(rows[index], "D10-B01", reason("D10-B01", match.sentence))
        for index, match in found.items()
    ]
    return kept, dropped


def _overlaps(rows: Sequence[Example], texts: Sequence[BenchmarkText]) -> Iterator[Match]:
    """Yield the rows that share a run of words with a benchmark text."""
    wanted: dict[str, BenchmarkText] = {}
    for item in texts:
        words = _words(item.text)
        if len(words) >= SHORTEST:
            for run in _runs(words, min(LONGEST, len(words))):
                wanted.setdefault(run, item)
    sizes = sorted({run.count(" ") + 1 for run in wanted}, reverse=True)
    holders: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        words = _words(f"{row.input_text}\n{'' if row.is_text else row.answer or ''}")
        for size in sizes:
            for run in dict.fromkeys(_runs(words, size)):
                if run in wanted:
                    holders[run].append(index)
    for run, indices in holders.items():
        if len(indices) <= BOILERPLATE:
            for index in indices:
                yield Match(index, "overlap", wanted[run].place, f": {run[:_SHOWN]!r}")


def _words(text: str) -> list[str]:
    return _WORD.findall(normalise(text))


def _runs(words: Sequence[str], size: int) -> Iterator[str]:
    """Yield every run of `size` words."""
    for start in range(len(words) - size + 1):
        yield " ".join(words[start : start + size])


def _lines(path: Path, name: str) -> Iterator[BenchmarkText]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=name, fix="Save the file as UTF-8") from error
    for number, line in enumerate(text.split("\n"), start=1):
        yield BenchmarkText(line, f"{name}:{number}")


def _rows(path: Path, name: str, answers: bool) -> Iterator[BenchmarkText]:
    from tutelage.data.readers.base import Tally, read_file
    from tutelage.data.readers.shape import Shaper

    shaper = Shaper(Columns(), OutputFormat())
    for item in read_file(path, shaper, Tally(name)):
        if isinstance(item, Example):
            yield BenchmarkText(item.input_text, item.origin.source)
            answer = "" if item.is_text or not answers else item.answer or ""
            if len(_words(answer)) >= SHORTEST:
                yield BenchmarkText(answer, item.origin.source)
        else:
            for text in _texts_in(item.whole):
                yield BenchmarkText(text, item.source)


def _texts_in(raw: str) -> list[str]:
    """Return the text fields of a row that has no known shape; none of what is no row."""
    try:
        value: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return []
    fields = value.values() if isinstance(value, dict) else ()
    return [field for field in fields if isinstance(field, str)]
