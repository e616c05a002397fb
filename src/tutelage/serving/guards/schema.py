"""Shape: turns in a possible order and not too long, an answer in the release's output format.

It judges form only; whether the answer is right is evaluation's business.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for

from tutelage.core.config_guards import Action, SchemaLayer
from tutelage.core.errors import ConfigError
from tutelage.core.example import Message
from tutelage.core.output import read_json
from tutelage.serving.guards.base import WHOLE, GuardContext, whole


class SchemaGuard:
    """Checks the order and amount of turns, and the answer against labels or JSON Schema."""

    def __init__(self, context: GuardContext) -> None:
        asked = context.options
        self._options = asked if isinstance(asked, SchemaLayer) else SchemaLayer()
        self._output = context.output
        self._answer: Any = None
        schema = context.json_schema
        if schema and schema != context.output.schema():  # else parsing says the same, sooner
            self._answer = validator_for(schema)(schema)
        self._input = _read_schema(context, self._options.input) if self._options.input else None
        self._closed = bool(schema or self._output.field or self._output.labels)
        self.action: Action = self._options.action
        self.hold = WHOLE if self.action == "block" and self._closed else 0

    def check_request(self, messages: Sequence[Message]) -> str | None:
        """Return why the turns are not a conversation of the allowed size, or None."""
        if messages[-1].role not in ("user", "tool"):
            return f"the last turn is the {messages[-1].role}'s, not the user's"
        if any(turn.role == "system" for turn in messages[1:]):
            return "a system message is not the first turn"
        most = self._options
        if len(messages) > most.max_messages:
            return f"the request has {len(messages):,} turns, more than {most.max_messages:,}"
        size = sum(len(turn.content) for turn in messages)
        if size > most.max_characters:
            return f"the request has {size:,} characters, more than {most.max_characters:,}"
        if self._input is not None and messages[-1].role == "user":
            problem = against(self._input, messages[-1].content)
            return f"the last turn is not what it should be: {problem}" if problem else None
        return None

    def check_response(
        self, text: str, finish_reason: str, messages: Sequence[Message]
    ) -> str | None:
        """Return why a whole answer is not in the release's format, or None."""
        if not (whole(finish_reason) and self._closed) or finish_reason == "tool_calls":
            return None
        if self._answer is not None:
            return against(self._answer, text)
        return self._output.parse(text).problem


def against(validator: Any, text: str) -> str | None:
    """Return why a text is not JSON that the validator's schema allows, or None."""
    try:
        error = next(iter(validator.iter_errors(read_json(text))), None)
    except ValueError:
        return "not JSON"
    except RecursionError:
        return "it is nested too deeply"
    return None if error is None else f"{error.json_path}: {error.message}"[:200]


def _read_schema(context: GuardContext, name: str) -> Any:
    """Return a validator of the JSON Schema in a file of the project."""
    path = context.root / name
    fix = "Correct deploy.guards.schema.input, or the file"
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        kind = validator_for(schema)
        kind.check_schema(schema)
    except OSError as error:
        reason = (error.strerror or "it can't be read").lower()
        raise ConfigError(
            f"there is no such schema ({reason})", where=str(path), fix=fix
        ) from error
    except SchemaError as error:
        problem = f"this is no JSON Schema ({error.message[:120]})"
        raise ConfigError(problem, where=str(path), fix=fix) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError("this is not JSON", where=str(path), fix=fix) from error
    return kind(schema)
