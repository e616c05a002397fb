"""Length: the text is neither too short nor too long."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tutelage.core.config_base import Section
from tutelage.core.example import Example
from tutelage.evaluation.scorers.base import HERE, Place, Score


class LengthOptions(Section):
    """The bounds, both included; at least one of them."""

    at_least: int | None = Field(default=None, ge=0)
    at_most: int | None = Field(default=None, ge=0)
    unit: Literal["characters", "words", "tokens", "lines"] = "words"  # tokens: the model's own

    @model_validator(mode="after")
    def _has_a_bound(self) -> LengthOptions:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most, or both")
        if self.at_most is not None and self.at_most < (self.at_least or 0):
            raise ValueError("at_most is below at_least")
        return self


class Length:
    """1 if the text's length lies within the bounds, else 0; needs no reference answer."""

    Options = LengthOptions
    rule = True

    def __init__(self, options: LengthOptions, place: Place = HERE) -> None:
        if options.unit == "tokens" and place.count_tokens is None:
            raise place.wrong("length: tokens can't be counted here", "Count words or characters")
        self._options, self._tokens = options, place.count_tokens

    def score(self, row: Example, text: str) -> Score:
        """Give the length; space around the text does not count."""
        del row
        unit, text = self._options.unit, text.strip()
        if unit == "tokens" and self._tokens is not None:
            length = self._tokens(text)
        elif unit == "words":
            length = len(text.split())
        else:
            length = len(text.splitlines()) if unit == "lines" else len(text)
        low, high = self._options.at_least or 0, self._options.at_most
        evidence: dict[str, object] = {"length": length, "unit": unit}
        if length < low:
            evidence["why"] = f"{length} {unit}, fewer than {low}"
        elif high is not None and length > high:
            evidence["why"] = f"{length} {unit}, more than {high}"
        return Score(float("why" not in evidence), evidence)
