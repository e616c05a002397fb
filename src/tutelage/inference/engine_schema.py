"""Which JSON Schemas the engine may promise to keep to, and whether an answer did.

llama.cpp drops a schema that it can't enforce and answers unconstrained, so a keyword that its
decoder (llguidance) does not know is refused before, and the answer is checked after. A client's
schema is never a reason to fetch anything, nor to run its patterns over a text: they can take ages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

_MAPS = {"properties", "patternProperties", "$defs", "definitions"}
_LISTS = {"anyOf", "allOf", "oneOf", "prefixItems"}
_SINGLE = {"items", "additionalProperties"}
_PLAIN = {
    "type", "enum", "const", "required", "$ref", "$schema", "$id", "title", "description",
    "default", "examples", "minItems", "maxItems", "minLength", "maxLength", "pattern", "format",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
}  # fmt: skip
_VALUES = {"const", "enum", "default", "examples"}  # what they hold is no schema
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
    if unknown:
        return f"this engine can't enforce {unknown} of the JSON schema"
    reference = next(_astray(schema), None)
    return f"the JSON schema refers to {reference!r}, which is not in it" if reference else None


def tight(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with the spacing of json.dumps made part of it."""
    return {**schema, "x-guidance": _TIGHT}


def answer_problem(schema: dict[str, Any], text: str) -> str | None:
    """Return how `text` breaks the schema, or None if it keeps to it."""
    try:
        value = json.loads(text)
    except ValueError:
        return "it is not JSON"
    try:
        error = next(_Checker(schema, registry=_NOWHERE).iter_errors(value), None)
    except (Unresolvable, RecursionError):
        return "the schema refers to itself without end, or to what is not in it"
    return f"{error.json_path}: {error.message}" if error else None


def _left(*_: Any) -> Iterator[ValidationError]:
    """Leave a keyword to the decoder, which knows patterns that take no longer than the text."""
    return iter(())


def _additional(checker: Any, allowed: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if "patternProperties" in schema:
        return iter(())
    found: Iterator[ValidationError] = _RULES["additionalProperties"](
        checker, allowed, value, schema
    )
    return found


_RULES = Draft202012Validator.VALIDATORS
_NOWHERE: Any = Registry()  # holds nothing and fetches nothing
_Checker: Any = extend(
    Draft202012Validator,
    {
        "pattern": _left,
        "patternProperties": _left,
        "additionalProperties": _additional,
        "oneOf": _RULES["anyOf"],  # which of them a text is may hang on a pattern
    },
)


def _astray(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the references that do not name a place in the schema itself."""
    resolver = _NOWHERE.with_resource("", DRAFT202012.create_resource(schema)).resolver()
    for reference in _references(schema):
        try:
            if not reference.startswith("#"):
                raise Unresolvable(reference)
            resolver.lookup(reference)
        except Unresolvable:
            yield reference


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for part in schema:
            yield from _references(part)
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            elif key not in _VALUES:
                yield from _references(value)


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
