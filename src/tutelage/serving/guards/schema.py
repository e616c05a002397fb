"""Shape: a conversation that ends with the user's turn, an answer in the release's output format.

It judges form only; whether the answer is right is evaluation's business.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jsonschema.validators import validator_for

from tutelage.core.example import Message
from tutelage.serving.guards.base import GuardContext


class SchemaGuard:
    """Checks the order of turns, and the answer against labels or JSON Schema."""

    def __init__(self, context: GuardContext) -> None:
        self._output = context.output
        self._validator: Any = None
        if context.json_schema:
            self._validator = validator_for(context.json_schema)(context.json_schema)

    def check_request(self, messages: Sequence[Message]) -> str | None:
        """Return why the turns are not a conversation, or None."""
        if messages[-1].role not in ("user", "tool"):
            return f"the last turn is the {messages[-1].role}'s, not the user's"
        if any(turn.role == "system" for turn in messages[1:]):
            return "a system message is not the first turn"
        return None

    def check_response(self, text: str, finish_reason: str) -> str | None:
        """Return why the answer is not in the release's format, or None."""
        if self._validator is not None:
            return self._against_schema(text)
        if self._output.field is None and not self._output.labels:
            return None
        return self._output.parse(text).problem

    def _against_schema(self, text: str) -> str | None:
        try:
            value = json.loads(text)
        except ValueError:
            return "not JSON"
        error = next(iter(self._validator.iter_errors(value)), None)
        return None if error is None else f"{error.json_path}: {error.message}"[:200]
