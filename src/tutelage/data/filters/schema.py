"""The first layer: shape. Turns in a possible order, an answer at the end, nothing empty.

Tool calls must be whole: arguments that are JSON, and every result after the call it answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from tutelage.core.example import Example, Message
from tutelage.core.output import read_json
from tutelage.data.filters.base import FilterSettings, at
from tutelage.data.findings import Finding

Problem = tuple[str, str]
_SPELLED = re.compile(r"<tool_call|<function|^Action:", re.MULTILINE)  # calls written as text


class SchemaFilter:
    """Checks roles, their order, empty turns, tool calls, and the answer against its shape."""

    def __init__(self, settings: FilterSettings | None = None) -> None:
        self._settings = settings or FilterSettings()
        self._validator = _validator(self._settings.json_schema)

    def check(self, example: Example) -> Iterator[Finding]:
        """Yield at most one finding: the first thing that makes the row unusable."""
        raw = example.is_text and self._settings.task == "text"
        problem = None if raw else _order(example) or _tools(example.messages)
        problem = problem or _emptiness(example) or self._answer(example)
        if problem is not None:
            yield at(example, *problem)

    def check_all(self, rows: Sequence[Example]) -> Iterator[Finding]:
        """Yield nothing: shape is a matter of single rows."""
        yield from ()

    def _answer(self, example: Example) -> Problem | None:
        output = self._settings.output
        answer = example.answer or ""
        if output.field or output.labels:
            parsed = output.parse(answer)
            if parsed.problem:
                outside = parsed.problem.endswith("of the labels")
                return "D2-S09" if outside else "D2-S08", parsed.problem
        if self._validator is not None:
            try:
                value = read_json(answer)
            except ValueError:
                return "D2-S08", "the answer is not JSON"
            error = next(self._validator.iter_errors(value), None)
            if error is not None:
                place = "/".join(str(part) for part in error.absolute_path) or "the answer"
                return "D2-S11", f"{place}: {str(error.message)[:120]}"
        return None


def _order(example: Example) -> Problem | None:
    if not example.messages:
        return "D2-S01", "the list of turns is empty"
    roles = [m.role for m in example.messages]
    if "system" in roles[1:]:
        place = roles.index("system", 1) + 1
        return "D2-S03", f"turn {place} is a system message, which may only come first"
    body = roles[1:] if roles[0] == "system" else roles
    if not body or body[0] != "user":
        first = body[0] if body else "nothing"
        return "D2-S03", f"the conversation starts with {first}, not with the user"
    for place, (one, two) in enumerate(pairwise(body), start=2):
        if one == two and one != "tool":
            shift = len(roles) - len(body)
            return "D2-S03", f"turns {place - 1 + shift} and {place + shift} are both {one}"
    if body[-1] != "assistant":
        return "D2-S04", f"the last turn is {body[-1]}'s, so there is no answer to learn"
    return None


def _emptiness(example: Example) -> Problem | None:
    if not (example.answer or "").strip():
        last = example.messages[-1] if example.messages else None
        if last is not None and calls_of(last):
            return "D2-S14", "the answer is a tool call without text"
        return "D2-S05", "the answer is empty"
    for place, message in enumerate(example.messages[:-1], start=1):
        if not message.content.strip() and message.role != "tool" and not calls_of(message):
            return "D2-S06", f"turn {place} ({message.role}) is empty"
    return None


def calls_of(message: Message) -> list[Any]:
    """Return the tool calls of a turn, a `function_call` of the older form among them."""
    extra = message.model_extra
    if not extra:
        return []
    calls = extra.get("tool_calls") or []
    old = extra.get("function_call")
    return [*(calls if isinstance(calls, list) else [calls]), *([old] if old else [])]


def _tools(messages: Sequence[Message]) -> Problem | None:
    """Return what is wrong with calls and their results, turn by turn."""
    open_calls: dict[str, str] | None = None  # id -> name; None: no call is open
    for place, message in enumerate(messages, start=1):
        if message.role == "tool":
            problem = _result(message, place, open_calls)
            if problem is not None:
                return problem
            continue
        calls = calls_of(message)
        open_calls = {} if _SPELLED.search(message.content) else None
        if not calls:
            continue
        if message.role != "assistant":
            return "D2-S13", f"turn {place} ({message.role}) calls a tool, which only answers do"
        open_calls = {}
        for index, call in enumerate(calls):
            problem = _call(call, place)
            if problem is not None:
                return problem
            function = call.get("function", call)
            key = str(call.get("id") or f"#{index}")
            if key in open_calls:
                return "D2-S13", f"turn {place} has two calls with the id {key[:40]!r}"
            open_calls[key] = str(function["name"])
    return None


def _call(call: Any, place: int) -> Problem | None:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return "D2-S13", f"turn {place} has a tool call that is not an object"
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        return "D2-S13", f"turn {place} has a tool call without a function's name"
    arguments = function.get("arguments", "{}")
    if isinstance(arguments, str):
        try:
            arguments = read_json(arguments or "{}")
        except ValueError as error:
            return "D2-S13", f"turn {place}: the arguments of {name[:40]!r} are not JSON ({error})"
    if not isinstance(arguments, dict):
        return "D2-S13", f"turn {place}: the arguments of {name[:40]!r} are not a JSON object"
    return None


def _result(message: Message, place: int, open_calls: dict[str, str] | None) -> Problem | None:
    if open_calls is None:
        return "D2-S12", f"turn {place} is a tool's result, and no call stands before it"
    extra = message.model_extra or {}
    answered = extra.get("tool_call_id")
    if answered is None:
        name = extra.get("name")
        if name is not None and open_calls and str(name) not in open_calls.values():
            return "D2-S12", f"turn {place} is a result of {str(name)[:40]!r}, which was not called"
        return None
    if str(answered) not in open_calls:
        return "D2-S12", f"turn {place} answers the call {str(answered)[:40]!r}, which is not there"
    return None


def _validator(schema: dict[str, Any] | None) -> Any:
    if schema is None:
        return None
    from jsonschema.validators import validator_for

    return validator_for(schema)(schema)
