"""Field-level scores of structured output: which fields of the reference's JSON were found.

Both texts are read as JSON and taken apart into their innermost fields; null and absent are the
same. Elements of lists are matched so that as many fields as possible agree (the assignment
problem; scipy), unless their order matters.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from tutelage.core.config_base import Section
from tutelage.core.example import Example, normalise
from tutelage.core.output import read_json
from tutelage.evaluation.scorers.base import HERE, NO_REFERENCE, Place, Score

Counts = dict[str, list[int]]  # field → [agree, written, expected]
_WHOLE = "(whole)"  # the path of an answer that is one bare value


class FieldF1Options(Section):
    """What counts as the same."""

    ordered: bool = False  # lists must agree place by place
    exact: bool = False  # texts must agree in case and spaces too
    tolerance: float = Field(default=1e-9, ge=0)  # relative, between numbers
    ignore: list[str] = []  # fields that do not count, such as notes or items[].id


class FieldF1:
    """F1 of the innermost fields of the JSON, 0..1, against the reference's."""

    Options = FieldF1Options

    def __init__(self, options: FieldF1Options, place: Place = HERE) -> None:
        del place
        self._options = options

    def score(self, row: Example, text: str) -> Score:
        """Give the counts of each field as evidence; text that is not JSON finds no field."""
        if row.answer is None:
            return NO_REFERENCE
        try:
            expected = read_json(row.answer.strip())
        except ValueError:
            return Score(None, {"why": "the reference is not JSON"})
        why = None
        try:
            got = read_json(text.strip())
        except ValueError as error:
            got, why = None, f"not JSON ({error})"
        try:
            counts = compare(expected, got, self._options)
        except RecursionError:
            counts, why = compare(expected, None, self._options), "it is nested too deeply"
        wrong = sorted(path for path, (hit, w, e) in counts.items() if hit < max(w, e))
        evidence: dict[str, Any] = {"fields": counts, "wrong": wrong}
        if why or wrong:
            evidence["why"] = why or f"not as expected: {', '.join(wrong)[:200]}"
        if why is None and not counts:
            return Score(1.0, evidence)
        return Score(_ratios(_total(counts))[2], evidence)

    def summary(self, scores: Mapping[str, Score]) -> dict[str, float]:
        """Return precision, recall and F1 of each field over all rows, and of all fields."""
        fields: Counts = defaultdict(lambda: [0, 0, 0])
        for score in scores.values():
            for path, counts in score.evidence.get("fields", {}).items():
                fields[path] = [a + b for a, b in zip(fields[path], counts, strict=True)]
        if not fields:
            return {}
        names = ("precision", "recall", "f1")
        found = {
            f"{path}.{name}": value
            for path in sorted(fields)
            for name, value in zip(names, _ratios(fields[path]), strict=True)
        }
        micro = zip(names, _ratios(_total(fields)), strict=True)
        macro = float(np.mean([_ratios(counts)[2] for counts in fields.values()]))
        return {**{f"micro_{name}": value for name, value in micro}, "macro_f1": macro, **found}


def compare(expected: Any, got: Any, options: FieldF1Options) -> Counts:
    """Return {path: [agree, written, expected]} of all innermost fields of two JSON values."""
    counts: Counts = {}
    for place, by in enumerate(
        (_match(expected, got, "", options), _leaves(got), _leaves(expected))
    ):
        for path, number in by.items():
            if not _ignored(path, options.ignore):
                counts.setdefault(path or _WHOLE, [0, 0, 0])[place] += number
    return counts


def _ignored(path: str, names: list[str]) -> bool:
    return any(path == name or path.startswith((f"{name}.", f"{name}[")) for name in names)


def _leaves(value: Any, path: str = "") -> Counter[str]:
    """Count the innermost fields by path; those that are null, or an empty list, do not count."""
    found: Counter[str] = Counter()
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for inner in value:
            found += _leaves(inner, f"{path}[]")
    elif value is not None:
        found[path] += 1
    return found


def _match(expected: Any, got: Any, path: str, options: FieldF1Options) -> Counter[str]:
    """Count the innermost fields that agree, by path."""
    if isinstance(expected, dict) and isinstance(got, dict):
        found: Counter[str] = Counter()
        for key in expected.keys() & got.keys():
            below = f"{path}.{key}" if path else str(key)
            found += _match(expected[key], got[key], below, options)
        return found
    if isinstance(expected, list) and isinstance(got, list):
        return _match_lists(expected, got, f"{path}[]", options)
    same = not isinstance(expected, (dict, list)) and _same(expected, got, options)
    return Counter({path: 1}) if same and expected is not None else Counter()


def _match_lists(
    expected: list[Any], got: list[Any], path: str, options: FieldF1Options
) -> Counter[str]:
    from scipy.optimize import linear_sum_assignment

    if options.ordered:
        pairs = [_match(a, b, path, options) for a, b in zip(expected, got, strict=False)]
        return sum(pairs, Counter())
    if not expected or not got:
        return Counter()
    table = [[_match(a, b, path, options) for b in got] for a in expected]
    agree = np.array([[cell.total() for cell in row] for row in table])
    chosen = zip(*linear_sum_assignment(agree, maximize=True), strict=True)
    return sum((table[i][j] for i, j in chosen), Counter())


def _same(left: Any, right: Any, options: FieldF1Options) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return math.isclose(left, right, rel_tol=options.tolerance, abs_tol=options.tolerance)
    if isinstance(left, str) and isinstance(right, str):
        return left == right if options.exact else normalise(left) == normalise(right)
    return False


def _total(counts: Counts) -> list[int]:
    return [sum(c[place] for c in counts.values()) for place in range(3)]


def _ratios(counts: list[int]) -> tuple[float, float, float]:
    """Return precision, recall and F1; a ratio without a denominator is 0."""
    agree, written, expected = counts
    both = written + expected
    return (
        agree / written if written else 0.0,
        agree / expected if expected else 0.0,
        2 * agree / both if both else 0.0,
    )
