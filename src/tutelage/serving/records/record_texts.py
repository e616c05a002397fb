"""What a record keeps of a request's turns and of its answer: redacted, with all calls of tools.

The arguments of a call are JSON inside a text. Their values are redacted one by one, since escapes
hide what they say, and then the text as a whole, where names of fields say what a value is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tutelage.core.example import Message
from tutelage.data.split import private_name
from tutelage.serving.records.request_log import Redactor, safe_text
from tutelage.serving.wire.fast_json import encode

_LONGEST_USER = 128  # characters


def kept_user(user: str, clean: Redactor, key: bytes) -> str:
    """Return a user as the log keeps it: as `kept_name`, and hashed if it is long."""
    return kept_name(user, clean, key) if len(user) <= _LONGEST_USER else private_name(key, user)


def kept_name(name: str, clean: Redactor, key: bytes) -> str:
    """Return a name as it is, or its keyed hash if the redactor objects: two people stay two."""
    return name if clean(name) == name else private_name(key, name)


def answer_text(said: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """Return an answer as one text: as JSON with its calls of tools, if there are any."""
    if not calls:
        return said
    content = {"content": said} if said else {}
    return encode({**content, "tool_calls": calls}).decode()


def record_texts(
    messages: Iterable[Message], said: str, calls: Sequence[Mapping[str, Any]], clean: Redactor
) -> tuple[list[dict[str, Any]], str]:
    """Return the turns and the answer as the record keeps them; it may take long."""
    turns = [_kept(turn, clean) for turn in messages]
    return turns, answer_text(clean(safe_text(said)), cleaned(list(calls), clean))


def _kept(turn: Message, clean: Redactor) -> dict[str, Any]:
    kept = {"role": turn.role, "content": clean(safe_text(turn.content))}
    more = turn.model_extra
    return {**kept, **cleaned(more, clean)} if more else kept


def cleaned(value: Any, clean: Redactor) -> Any:
    """Return plain data with every text redacted, the arguments of calls also inside."""
    if isinstance(value, str):
        return clean(safe_text(value))
    if isinstance(value, Mapping):
        return {
            safe_text(key): _arguments(part, clean)
            if key == "arguments" and isinstance(part, str)
            else cleaned(part, clean)
            for key, part in value.items()
        }
    return [cleaned(part, clean) for part in value] if isinstance(value, (list, tuple)) else value


def _arguments(text: str, clean: Redactor) -> str:
    try:
        given = json.loads(text)
        kept = cleaned(given, clean)
    except (ValueError, RecursionError):  # a model's slip: it is a text like any other
        given = kept = None
    return clean(safe_text(text if kept == given else json.dumps(kept, ensure_ascii=False)))
