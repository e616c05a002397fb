"""Rules on the shape of an answer: it parses, and it meets the JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.core.errors import ConfigError
from tutelage.core.example import Example
from tutelage.core.output import OutputFormat, read_json
from tutelage.evaluation.scorers.base import PLAIN, Score


class ValidOutput:
    """1 if the text has the shape that was asked for, else 0; needs no reference answer.

    With a JSON Schema (given, or implied by the output's field and labels) the text must be JSON
    that meets it. Without one, a closed list of labels must hold it, and other text is valid if
    it is not empty.
    """

    rule = True

    def __init__(
        self,
        output: OutputFormat = PLAIN,
        json_schema: Mapping[str, Any] | None = None,
    ) -> None:
        self._output = output
        schema = dict(json_schema) if json_schema else output.schema()
        self._validator = _validator(schema) if schema else None

    def score(self, row: Example, text: str) -> Score:
        """Say what is wrong with the text, if anything is."""
        problem = self._problem(text)
        return Score(float(problem is None), {"why": problem} if problem else {})

    def _problem(self, text: str) -> str | None:
        if self._validator is None:
            if not text.strip():
                return "empty"
            return self._output.parse(text).problem
        try:
            value = read_json(text.strip())
        except ValueError as error:
            return f"not JSON ({error})"
        found = next(iter(self._validator.iter_errors(value)), None)
        return None if found is None else str(found.message)[:200]


def _validator(schema: Mapping[str, Any]) -> Any:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ConfigError(
            f"it is no JSON Schema ({error.message})",
            where="output.json_schema",
            fix="Correct it in tutelage.yaml",
        ) from error
    return kind(schema)
