"""The parts of a chat request that speak of forms and tools: read, checked, never interpreted.

What a tool does is the client's business, and whether the model can call one is the engine's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for

from tutelage.serving.wire.fast_json import encode
from tutelage.serving.wire.wire import bad

_MOST_TOOLS = 128
_MOST_SCHEMA = 65_536  # characters
_MOST_TOOLS_TEXT = 262_144  # bytes of all of them, as JSON: engines check each schema
_FORMS = ("text", "json_object", "json_schema")
_CHOICES = ("none", "auto", "required")


def read_tools(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return tools, tool_choice and parallel_tool_calls as they came; raise HttpError 400."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools is None or tools == []:
        if choice not in (None, "none", "auto"):
            raise bad("tool_choice", "'tool_choice' needs 'tools' to choose from.")
        return {}
    if not isinstance(tools, list) or len(tools) > _MOST_TOOLS:
        raise bad("tools", f"'tools' must be a list of at most {_MOST_TOOLS} functions.")
    if len(encode(tools)) > _MOST_TOOLS_TEXT:
        raise bad("tools", f"'tools' takes more than {_MOST_TOOLS_TEXT:,} bytes.")
    names = [_tool_name(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    found: dict[str, Any] = {"tools": tools}
    if choice is not None:
        found["tool_choice"] = _choice(choice, names)
    parallel = body.get("parallel_tool_calls")
    if parallel is not None:
        if not isinstance(parallel, bool):
            raise bad("parallel_tool_calls", "'parallel_tool_calls' must be true or false.")
        found["parallel_tool_calls"] = parallel
    return found


def _tool_name(tool: Any, where: str) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type") != "function":
        raise bad(where, f"'{where}' must be an object with 'type': 'function' and 'function'.")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise bad(f"{where}.function.name", f"'{where}.function.name' must be a name.")
    if not isinstance(function.get("parameters", {}), dict):
        raise bad(f"{where}.function.parameters", f"'{where}' needs a JSON Schema as parameters.")
    return name


def _choice(choice: Any, names: list[str]) -> Any:
    if isinstance(choice, str) and choice in _CHOICES:
        return choice
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name is None:
        known = ", ".join(_CHOICES)
        raise bad("tool_choice", f"'tool_choice' must be {known} or name one of the tools.")
    if name not in names:
        raise bad("tool_choice", f"'tool_choice' names {name!r}, which is not among the tools.")
    return choice


def call_fields(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of a message that speak of tool calls, and its name."""
    found: dict[str, Any] = {}
    for name in ("name", "tool_call_id"):
        value = item.get(name)
        if value is not None:
            if not isinstance(value, str):
                raise bad(f"{where}.{name}", f"'{where}.{name}' must be a string.")
            found[name] = value
    if item.get("role") == "tool" and "tool_call_id" not in found:
        raise bad(f"{where}.tool_call_id", f"'{where}' must say which call it answers.")
    calls = item.get("tool_calls")
    if calls:
        if item.get("role") != "assistant" or not isinstance(calls, list):
            raise bad(f"{where}.tool_calls", f"'{where}.tool_calls' must be an assistant's list.")
        found["tool_calls"] = [
            _call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)
        ]
    return found


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise bad(where, f"'{where}' must be an object with 'id', 'type' and 'function'.")
    name, arguments = function.get("name"), function.get("arguments", "")
    if not (isinstance(name, str) and isinstance(arguments, str)):
        raise bad(f"{where}.function", f"'{where}.function' needs 'name' and 'arguments' as text.")
    known = {"id": call.get("id"), "type": "function"}
    return {**known, "function": {"name": name, "arguments": arguments}}


def merge_calls(calls: list[dict[str, Any]], deltas: Sequence[Mapping[str, Any]]) -> int:
    """Add a stream's pieces of tool calls to `calls`; return how many characters came.

    A piece names its call by `index`; without one (a whole answer) it is a call of its own.
    """
    came = 0
    for delta in deltas:
        index = delta.get("index")
        place = index if isinstance(index, int) and 0 <= index < len(calls) else len(calls)
        if place == len(calls):
            calls.append(
                {"id": None, "type": "function", "function": {"name": "", "arguments": ""}}
            )
        call, function = calls[place], delta.get("function") or {}
        call["id"] = delta.get("id") or call["id"]
        for name in ("name", "arguments"):
            piece = function.get(name)
            if isinstance(piece, str):
                call["function"][name] += piece
                came += len(piece)
        came += 50  # a call without text takes room too
    return came


def words_of(calls: Sequence[Mapping[str, Any]]) -> str:
    """Return what calls of tools say, each text in a line: JSON would hide it behind escapes."""
    found: list[str] = []
    for call in calls:
        function = call["function"]
        found.append(function["name"])
        try:
            left: list[Any] = [json.loads(function["arguments"])]
        except (ValueError, RecursionError):
            left = [function["arguments"]]
        while left:
            value = left.pop()
            if isinstance(value, dict):
                left += [part for pair in value.items() for part in pair][::-1]
            elif isinstance(value, list):
                left += value[::-1]
            else:
                found.append(str(value))
    return "\n".join(found)


def read_form(value: Any) -> dict[str, Any] | None:
    """Return the response_format, None for plain text; raise HttpError 400 for an unknown one."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise bad("response_format", "'response_format' must be an object.")
    kind = value.get("type")
    if kind not in _FORMS:
        raise bad("response_format", f"'response_format.type' must be one of {', '.join(_FORMS)}.")
    if kind == "json_schema":
        form = value.get("json_schema")
        schema = form.get("schema") if isinstance(form, dict) else None
        if not isinstance(schema, dict):
            raise bad("response_format", "'response_format.json_schema' needs 'name' and 'schema'.")
        text = json.dumps(schema, sort_keys=True)
        if len(text) > _MOST_SCHEMA:
            raise bad(
                "response_format", f"The JSON Schema is longer than {_MOST_SCHEMA:,} characters."
            )
        problem = _schema_problem(text)
        if problem is not None:
            raise bad("response_format", f"The JSON Schema is not valid: {problem}")
    return None if kind == "text" else value


@lru_cache(maxsize=256)
def _schema_problem(schema: str) -> str | None:
    """Return what is wrong with a JSON Schema, None if nothing is. Clients repeat theirs."""
    value = json.loads(schema)
    try:
        validator_for(value).check_schema(value)
    except SchemaError as error:
        return f"{error.json_path}: {error.message}"[:200]
    except Exception as error:  # a `$schema` or `$ref` that the checker itself trips over
        return f"it can't be checked ({type(error).__name__})"
    return None
