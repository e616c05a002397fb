"""A rubric: criteria with levels from worst to best, read from YAML, and the means of its marks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from tutelage.core.errors import DataError, nearest
from tutelage.evaluation.human.votes import Mark, by_row, pairs_of
from tutelage.evaluation.significance import Difference, Interval, mean_interval, paired_difference

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TAKEN = {"row", "input", "answer", "reference", "comment", "seconds", "win"}
_KEYS = {"name", "question", "levels"}


@dataclass(frozen=True)
class Criterion:
    """One thing that is marked: what is asked, and its levels, the worst first."""

    name: str
    question: str
    levels: tuple[str, ...]

    def level_of(self, word: str) -> int:
        """Return the place of a level, 0 the worst, by its name or its number from 1.

        Raises ValueError that says which levels there are.
        """
        plain = " ".join(word.split()).casefold()
        folded = [level.casefold() for level in self.levels]
        if plain in folded:
            return folded.index(plain)
        number = plain.removesuffix(".0")
        if number.isdecimal() and 1 <= int(number) <= len(self.levels):
            return int(number) - 1
        near = nearest(plain, folded)
        hint = f", did you mean {self.levels[folded.index(near)]!r}" if near else ""
        known = ", ".join(f"{i} {level}" for i, level in enumerate(self.levels, start=1))
        raise ValueError(f"{word!r} is no level of {self.name} ({known}){hint}")

    def value(self, level: int) -> float:
        """Return a level as a number, 0 the worst and 1 the best."""
        return level / (len(self.levels) - 1)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "levels": list(self.levels)}


def read_rubric(path: Path) -> tuple[Criterion, ...]:
    """Return the criteria of a YAML file: a list of {name, question, levels}.

    Raises DataError that says which entry is wrong.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise DataError(
            f"the rubric can't be read ({first})", where=str(path), fix="Check the path and YAML"
        ) from error
    return criteria_from(data, where=str(path))


def criteria_from(data: Any, *, where: str = "rubric") -> tuple[Criterion, ...]:
    """Return checked criteria of plain data."""
    fix = "Write a list of criteria, each with name, question and levels, the worst level first"
    if not isinstance(data, list) or not data:
        raise DataError("a rubric is a list of criteria", where=where, fix=fix)
    found: list[Criterion] = []
    for number, entry in enumerate(data, start=1):
        problem = _problem(entry, {criterion.name for criterion in found})
        if problem:
            raise DataError(f"criterion {number}: {problem}", where=where, fix=fix)
        levels = tuple(" ".join(str(level).split()) for level in entry["levels"])
        found.append(Criterion(entry["name"], str(entry.get("question", "")).strip(), levels))
    return tuple(found)


def _problem(entry: Any, names: set[str]) -> str | None:
    if not isinstance(entry, dict):
        return "it is no mapping"
    odd = next((key for key in entry if key not in _KEYS), None)
    if odd is not None:
        return f"unknown key {odd!r}"
    name, levels = entry.get("name"), entry.get("levels")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return "its name needs to be a small letter, then small letters, digits or _, at most 40"
    if name in _TAKEN or name in names:
        return f"the name {name!r} is taken"
    if not isinstance(levels, list) or not 2 <= len(levels) <= 20:
        return "it needs from 2 to 20 levels"
    if len({str(level).strip().casefold() for level in levels}) < len(levels):
        return "two of its levels are the same"
    return None


@dataclass(frozen=True)
class CriterionMean:
    """One candidate's mean on one criterion, 0..1."""

    criterion: str
    candidate: str
    mean: Interval


@dataclass(frozen=True)
class CriterionDifference:
    """Two candidates on one criterion, over the rows where both were marked."""

    criterion: str
    first: str
    second: str
    difference: Difference


def means(
    marks: Sequence[Mark],
    criteria: Sequence[str],
    candidates: Sequence[str],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[CriterionMean]:
    """Return each candidate's mean on each criterion; rows count once, clusters are drawn whole."""
    found = []
    for criterion in criteria:
        for candidate in candidates:
            rows = _rows(marks, criterion, candidate)
            mean = mean_interval(
                rows.values, clusters=rows.clusters, confidence=confidence, seed=seed
            )
            found.append(CriterionMean(criterion, candidate, mean))
    return found


def mark_differences(
    marks: Sequence[Mark],
    criteria: Sequence[str],
    candidates: Sequence[str],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[CriterionDifference]:
    """Return every two candidates on every criterion, paired by row."""
    found = []
    for criterion in criteria:
        for first, second in pairs_of(candidates):
            ours, theirs = _rows(marks, criterion, first), _rows(marks, criterion, second)
            other = dict(zip(theirs.items, theirs.values, strict=True))
            kept = [
                (value, other[item], cluster)
                for item, value, cluster in zip(ours.items, ours.values, ours.clusters, strict=True)
                if item in other
            ]
            difference = paired_difference(
                [a for a, _, _ in kept], [b for _, b, _ in kept],
                clusters=[c for _, _, c in kept], confidence=confidence, seed=seed,
            )  # fmt: skip
            found.append(CriterionDifference(criterion, first, second, difference))
    return found


def _rows(marks: Sequence[Mark], criterion: str, candidate: str) -> Any:
    return by_row(
        (mark.item, mark.cluster, mark.values[criterion])
        for mark in marks
        if mark.candidate == candidate and criterion in mark.values
    )
