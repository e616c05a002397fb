"""The first layer: shape. Turns in a possible order, an answer at the end, nothing empty."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from tutelage.core.example import Example
from tutelage.data.filters.base import FilterSettings, at
from tutelage.data.findings import Finding


class SchemaFilter:
    """Checks roles, their order, empty turns, and the answer against the project's shape."""

    def __init__(self, settings: FilterSettings | None = None) -> None:
        self._settings = settings or FilterSettings()
        self._validator = _validator(self._settings.json_schema)

    def check(self, example: Example) -> Iterator[Finding]:
        """Yield at most one finding: the first thing that makes the row unusable."""
        raw = example.is_text and self._settings.task == "text"
        order = None if raw else self._order(example)
        problem = order or self._emptiness(example) or self._answer(example)
        if problem is not None:
            yield at(example, *problem)

    def check_all(self, rows: Sequence[Example]) -> Iterator[Finding]:
        """Yield nothing: shape is a matter of single rows."""
        yield from ()

    @staticmethod
    def _order(example: Example) -> tuple[str, str] | None:
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

    @staticmethod
    def _emptiness(example: Example) -> tuple[str, str] | None:
        if not (example.answer or "").strip():
            return "D2-S05", "the answer is empty"
        for place, message in enumerate(example.messages[:-1], start=1):
            called = bool((message.model_extra or {}).get("tool_calls"))
            if not message.content.strip() and not called:
                return "D2-S06", f"turn {place} ({message.role}) is empty"
        return None

    def _answer(self, example: Example) -> tuple[str, str] | None:
        output = self._settings.output
        answer = example.answer or ""
        if output.field or output.labels:
            parsed = output.parse(answer)
            if parsed.problem:
                outside = parsed.problem.endswith("of the labels")
                return "D2-S09" if outside else "D2-S08", parsed.problem
        if self._validator is not None:
            try:
                value = json.loads(answer)
            except ValueError:
                return "D2-S08", "the answer is not JSON"
            error = next(self._validator.iter_errors(value), None)
            if error is not None:
                place = "/".join(str(part) for part in error.absolute_path) or "the answer"
                return "D2-S11", f"{place}: {str(error.message)[:120]}"
        return None


def _validator(schema: dict[str, Any] | None) -> Any:
    if schema is None:
        return None
    from jsonschema.validators import validator_for

    return validator_for(schema)(schema)
