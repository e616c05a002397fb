"""Reads the tool fields of an OpenAI chat request: which functions a model may call, and its calls.

It runs no tool. A call that must be made is held by a grammar of ours, which llama.cpp's own choice
"required" is not for every template; whether to call at all is left to the model and llama.cpp.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.inference.engine_problem import RequestProblem
from tutelage.inference.engine_schema import schema_problem

_NAME = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")
_CHOICES = ("none", "auto", "required")
_MOST = 128  # functions in a request, as in OpenAI's API


@dataclass(frozen=True)
class Tools:
    """The functions of a request. Empty `functions`: only earlier turns hold calls."""

    functions: tuple[dict[str, Any], ...]
    choice: str = "auto"  # none, auto or required
    parallel: bool = False


def read_tools(body: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Tools | None:
    """Return the tools of a request, None if it has nothing to do with any.

    A choice of one function becomes "required" among that one alone. Raises RequestProblem.
    """
    value = body.get("tools") or []
    if not isinstance(value, list) or len(value) > _MOST:
        raise RequestProblem(f"tools must be a list of at most {_MOST} functions")
    functions = tuple(_function(place, tool) for place, tool in enumerate(value))
    choice = body.get("tool_choice") or ("auto" if functions else "none")
    if isinstance(choice, Mapping):
        functions, choice = (_chosen(functions, choice),), "required"
    if choice not in _CHOICES:
        raise RequestProblem(
            f"tool_choice must be one of {', '.join(_CHOICES)}, or name a function"
        )
    if choice == "required" and not functions:
        raise RequestProblem("tool_choice asks for a call, and tools lists no function")
    told = any(turn["role"] == "tool" or "tool_calls" in turn for turn in messages)
    if not functions and not told:
        return None
    for name in ("response_format", "logprobs"):
        if functions and choice != "none" and body.get(name):
            raise RequestProblem(f"this engine can't keep to {name} and tools at once")
    return Tools(functions, choice, body.get("parallel_tool_calls") is True)


def calls_of(where: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a turn that belong to tools; raise RequestProblem if they are wrong."""
    if message["role"] == "tool":
        identity = message.get("tool_call_id")
        if not isinstance(identity, str):
            raise RequestProblem(f"{where}.tool_call_id must be the id of a call")
        return {"tool_call_id": identity}
    calls = message.get("tool_calls")
    if message["role"] != "assistant" or not calls:
        return {}
    if not isinstance(calls, list) or not all(map(_is_call, calls)):
        raise RequestProblem(
            f"{where}.tool_calls must hold calls with a function's name and arguments"
        )
    kept = [
        {
            "id": str(call.get("id") or ""),
            "type": "function",
            "function": {
                "name": call["function"]["name"],
                "arguments": call["function"]["arguments"],
            },
        }
        for call in calls
    ]
    return {"tool_calls": kept}


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, Mapping) else None
    return isinstance(function, Mapping) and all(
        isinstance(function.get(key), str) for key in ("name", "arguments")
    )


def _function(place: int, tool: Any) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or tool.get("type", "function") != "function":
        raise RequestProblem(f"tools[{place}] must be a function")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.match(name):
        raise RequestProblem(f"tools[{place}].function.name must be 1 to 64 of A-Z a-z 0-9 _ . -")
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if problem := schema_problem(parameters):
        raise RequestProblem(f"tools[{place}].function.parameters: {problem}")
    described = {"name": name, "description": str(function.get("description") or "")}
    return {"type": "function", "function": {**described, "parameters": parameters}}


def _chosen(functions: Sequence[dict[str, Any]], choice: Mapping[str, Any]) -> dict[str, Any]:
    wanted = (choice.get("function") or {}).get("name")
    for tool in functions:
        if tool["function"]["name"] == wanted:
            return tool
    known = ", ".join(tool["function"]["name"] for tool in functions) or "none"
    raise RequestProblem(f"tool_choice names {wanted!r}, which is not among tools: {known}")


def call_schema(tools: Tools) -> dict[str, Any]:
    """Return the JSON Schema of one call of one of the functions.

    Raises RequestProblem if two of them define something else under one name.
    """
    definitions: dict[str, Any] = {}
    forms = []
    for tool in tools.functions:
        parameters = dict(tool["function"]["parameters"])
        for key, value in parameters.pop("$defs", {}).items():
            if definitions.setdefault(key, value) != value:
                raise RequestProblem(f"two tools define {key!r} in different ways")
        fields = {"name": {"const": tool["function"]["name"]}, "arguments": parameters}
        form = {"type": "object", "properties": fields, "required": list(fields)}
        forms.append({**form, "additionalProperties": False})
    schema = forms[0] if len(forms) == 1 else {"anyOf": forms}
    return {**schema, "$defs": definitions} if definitions else schema


def call_of(text: str) -> dict[str, Any] | None:
    """Return the delta of a call that keeps to `call_schema`; None if it was cut off."""
    try:
        call = json.loads(text)
        name, arguments = call["name"], json.dumps(call["arguments"], ensure_ascii=False)
    except (ValueError, KeyError, TypeError):
        return None
    function = {"name": name, "arguments": arguments}
    identity = f"call_{secrets.token_hex(12)}"
    return {"index": 0, "id": identity, "type": "function", "function": function}


def joined_calls(deltas: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return whole calls from the deltas of a stream, in the order of their index."""
    calls: dict[int, dict[str, Any]] = {}
    for delta in deltas:
        start = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        call = calls.setdefault(int(delta.get("index") or 0), start)
        call["id"] = delta.get("id") or call["id"]
        function = delta.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""
    return [calls[place] for place in sorted(calls)]
