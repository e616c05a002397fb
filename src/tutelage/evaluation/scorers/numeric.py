"""Numeric tolerance: the number in the text is near enough to the reference's."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from pydantic import Field, model_validator

from tutelage.core.config_base import Section
from tutelage.core.example import Example
from tutelage.evaluation.scorers.base import HERE, NO_REFERENCE, Place, Score

_SPACES = "\u00a0\u2009\u202f\u2019'"  # narrow spaces and apostrophes that group digits
_DIGITS = r"(?:\d{1,3}(?:[GROUP]\d{3})+(?!\d)|\d+)"
_NUMBER = r"(?<![\w.,])[-+\u2212]?(?:DIGITS(?:[POINT]\d+)?|[POINT]\d+)(?:[eE][-+]?\d+)?(?![.,]?\d)"


class NumericOptions(Section):
    """How near is near enough: within either bound."""

    absolute: float = Field(default=0.0, ge=0)  # in the number's own unit
    relative: float = Field(default=0.0, ge=0)  # share of the reference's size: 0.05 is 5 %
    which: Literal["last", "first", "only"] = "last"  # number of the text; only: there is no other
    expected: float | None = None  # unset: the number in the reference answer
    decimal: Literal[".", ","] = "."  # the sign before the fraction; the other one groups digits

    @model_validator(mode="after")
    def _finite(self) -> NumericOptions:
        if not all(map(math.isfinite, (self.absolute, self.relative, self.expected or 0.0))):
            raise ValueError("bounds are finite numbers")
        return self


class Numeric:
    """1 if the text's number is within the tolerance of the reference's, else 0."""

    Options = NumericOptions
    rule = True

    def __init__(self, options: NumericOptions, place: Place = HERE) -> None:
        del place
        self._options = options

    def score(self, row: Example, text: str) -> Score:
        """Give both numbers and how far apart they are."""
        options = self._options
        expected = options.expected
        if expected is None:
            if row.answer is None:
                return NO_REFERENCE
            expected = _pick(numbers(row.answer, options.decimal), options.which)
            if expected is None:
                return Score(None, {"why": "there is no number in the reference"})
        found = numbers(text, options.decimal)
        got = _pick(found, options.which)
        evidence: dict[str, Any] = {"expected": expected, "got": got}
        if got is None:
            how = f"{len(found)} numbers, not one" if found else "there is no number in it"
            return Score(0.0, {**evidence, "why": how})
        difference = abs(got - expected)
        bound = max(options.absolute, options.relative * abs(expected), 1e-9 * abs(expected))
        evidence |= {"difference": difference, "allowed": bound}
        if difference > bound:
            evidence["why"] = f"{got:g} is {difference:g} from {expected:g}"
        return Score(float(difference <= bound), evidence)


def numbers(text: str, decimal: str = ".") -> list[float]:
    """Return the numbers of a text in order; digits may be grouped by three, as in 1,234.5."""
    group = ("," if decimal == "." else ".") + _SPACES
    digits = _DIGITS.replace("GROUP", group)
    pattern = _NUMBER.replace("DIGITS", digits).replace("POINT", decimal)
    found = []
    for match in re.findall(pattern, text):
        plain = re.sub(f"[{group}]", "", match).replace(decimal, ".").replace("\u2212", "-")
        value = float(plain)
        if math.isfinite(value):
            found.append(value)
    return found


def _pick(found: list[float], which: str) -> float | None:
    if not found or (which == "only" and len(found) > 1):
        return None
    return found[-1] if which == "last" else found[0]
