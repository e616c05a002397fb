"""JSON validity: the whole text is one JSON value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.core.example import Example
from tutelage.core.output import OutputFormat, read_json
from tutelage.evaluation.scorers.base import PLAIN, Score


class JsonValid:
    """1 if the text is JSON, apart from space around it, else 0; needs no reference answer."""

    rule = True

    def __init__(
        self, output: OutputFormat = PLAIN, json_schema: Mapping[str, Any] | None = None
    ) -> None:
        del output, json_schema

    def score(self, row: Example, text: str) -> Score:
        """Say where the text stops being JSON, or what kind of value it is."""
        del row
        try:
            value = read_json(text.strip())
        except ValueError as error:
            return Score(0.0, {"why": f"not JSON ({error})"})
        return Score(1.0, {"kind": type(value).__name__})
