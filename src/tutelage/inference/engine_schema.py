"""Which JSON Schemas the engine may promise to keep to, and whether an answer did.

llama.cpp drops a schema that it can't enforce and answers unconstrained, so a keyword that its
decoder (llguidance) does not know is refused before, and the answer is checked after.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

_MAPS = {"properties", "patternProperties", "$defs", "definitions"}
_LISTS = {"anyOf", "allOf", "oneOf", "prefixItems"}
_SINGLE = {"items", "additionalProperties"}
_PLAIN = {
    "type", "enum", "const", "required", "$ref", "$schema", "$id", "title", "description",
    "default", "examples", "minItems", "maxItems", "minLength", "maxLength", "pattern", "format",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
}  # fmt: skip
# White space is free in JSON, but the text a model is taught is json.dumps's: it may write only it.
_TIGHT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def schema_problem(schema: Any) -> str | None:
    """Return what is wrong with a schema, or that it can't be enforced; None if it is fine."""
    if not isinstance(schema, dict):
        return "the JSON schema must be an object"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"the JSON schema is wrong at {error.json_path}: {error.message}"
    unknown = next(_unknown(schema, "$"), None)
    return f"this engine can't enforce {unknown} of the JSON schema" if unknown else None


def tight(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with the spacing of json.dumps made part of it."""
    return {**schema, "x-guidance": _TIGHT}


def answer_problem(schema: dict[str, Any], text: str) -> str | None:
    """Return how `text` breaks the schema, or None if it keeps to it."""
    try:
        value = json.loads(text)
    except ValueError:
        return "it is not JSON"
    error = next(Draft202012Validator(schema).iter_errors(value), None)
    return f"{error.json_path}: {error.message}" if error else None


def _unknown(schema: Any, path: str) -> Iterator[str]:
    """Yield the keywords outside the known ones, with where they stand."""
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        here = f"{path}.{key}"
        if key in _MAPS:
            for name, inner in value.items():
                yield from _unknown(inner, f"{here}.{name}")
        elif key in _LISTS:
            for place, inner in enumerate(value):
                yield from _unknown(inner, f"{here}[{place}]")
        elif key in _SINGLE:
            yield from _unknown(value, here)
        elif key not in _PLAIN:
            yield here
