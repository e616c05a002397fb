"""Exact match: the text equals the reference, apart from case and spaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.core.example import Example, normalise
from tutelage.core.output import OutputFormat
from tutelage.evaluation.scorers.base import NO_REFERENCE, PLAIN, Score


class ExactMatch:
    """1 if the normalised text is the normalised reference, else 0."""

    def __init__(
        self,
        output: OutputFormat = PLAIN,
        json_schema: Mapping[str, Any] | None = None,
    ) -> None:
        del output, json_schema

    def score(self, row: Example, text: str) -> Score:
        """Compare with case folded and runs of space as one."""
        if row.answer is None:
            return NO_REFERENCE
        same = normalise(text) == normalise(row.answer)
        return Score(float(same), {"expected": row.answer, "got": text})
