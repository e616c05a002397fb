"""A regular expression that the text must, or must not, match (Python's re)."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from tutelage.core.config_base import Section
from tutelage.core.example import Example
from tutelage.evaluation.scorers.base import HERE, Place, Score


class RegexOptions(Section):
    """The pattern, and how it is applied."""

    pattern: str
    match: Literal["anywhere", "whole"] = "anywhere"  # whole: apart from space around the text
    ignore_case: bool = False
    multiline: bool = False  # ^ and $ match at every line
    absent: bool = False  # 1 if it does not match

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression ({error})") from error
        return value


class Regex:
    """1 if the text matches the pattern, else 0; needs no reference answer."""

    Options = RegexOptions
    rule = True

    def __init__(self, options: RegexOptions, place: Place = HERE) -> None:
        del place
        flags = re.IGNORECASE if options.ignore_case else 0
        self._pattern = re.compile(options.pattern, flags | (re.M if options.multiline else 0))
        self._whole, self._absent = options.match == "whole", options.absent

    def score(self, row: Example, text: str) -> Score:
        """Give what matched, and where."""
        del row
        if self._whole:
            text = text.strip()
        found = self._pattern.fullmatch(text) if self._whole else self._pattern.search(text)
        evidence: dict[str, object] = {}
        if found:
            evidence = {"matched": found[0][:200], "at": list(found.span())}
        right = bool(found) != self._absent
        if not right:
            evidence["why"] = "it matches" if found else "nothing matches"
        return Score(float(right), evidence)
