"""JSON Schema: the text is JSON that meets a schema from the config, a file, or the project."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import Field, model_validator

from tutelage.core.config_base import Section
from tutelage.core.example import Example
from tutelage.core.output import read_json
from tutelage.evaluation.scorers.base import HERE, Place, Score
from tutelage.evaluation.scorers.project_file import project_file


class JsonSchemaOptions(Section):
    """Which schema; without either, the project's output.json_schema."""

    meets: dict[str, Any] | None = Field(default=None, alias="schema")  # the schema itself
    file: str | None = None  # a JSON file with it, in the project's folder

    @model_validator(mode="after")
    def _one_of_them(self) -> JsonSchemaOptions:
        if self.meets is not None and self.file is not None:
            raise ValueError("give schema or file, not both")
        return self


class JsonSchema:
    """1 if the text is JSON that meets the schema, else 0; needs no reference answer."""

    Options = JsonSchemaOptions
    rule = True

    def __init__(self, options: JsonSchemaOptions, place: Place = HERE) -> None:
        """Read the schema. Raises ConfigError if there is none, or none that is valid."""
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for

        schema = options.meets if options.meets is not None else place.json_schema
        self.fingerprint = ""
        if options.file is not None:
            raw = project_file(options.file, place, "file").read_bytes()
            self.fingerprint = hashlib.sha256(raw).hexdigest()
            try:
                schema = json.loads(raw)
            except ValueError as error:
                raise place.wrong(f"{options.file} is not JSON ({error})") from error
        schema = schema or place.output.schema()
        if not schema:
            raise place.wrong("json_schema: there is no schema", "Give it schema or file")
        kind = validator_for(schema)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise place.wrong(f"json_schema: the schema is not valid ({error.message})") from error
        self._validator = kind(schema)

    def score(self, row: Example, text: str) -> Score:
        """Say how many rules are broken, and the first of them with its place."""
        del row
        try:
            value = read_json(text.strip())
        except ValueError as error:
            return Score(0.0, {"why": f"not JSON ({error})"})
        try:
            broken = sorted(self._validator.iter_errors(value), key=lambda e: e.json_path)
        except RecursionError:
            return Score(0.0, {"why": "it is nested too deeply"})
        if not broken:
            return Score(1.0)
        first = f"{broken[0].json_path}: {broken[0].message}"
        return Score(0.0, {"why": first[:200], "broken": len(broken)})
