"""Turn what a file holds of a conversation into messages: roles, parts of content, tool calls.

It knows the spellings of OpenAI, ShareGPT, Langfuse and the Responses API. Which field of a row
holds the conversation is decided elsewhere (shape.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core.example import Message, Role

ROLES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
    "chatgpt": "assistant", "ai": "assistant", "function_call": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool",
}  # fmt: skip
TEXT_PARTS = ("text", "input_text", "output_text")
_PLAIN = {"role", "content", "weight"}


class Unusable(Exception):
    """A row can't become an Example: the finding's id and a sentence."""

    def __init__(self, finding_id: str, detail: str) -> None:
        self.finding_id = finding_id
        self.detail = detail
        super().__init__(detail)


def read_turn(turn: Any, index: int, role: Role | None = None) -> Message:
    """Return one turn as a message; `role` stands in where the turn names none.

    What is not role and content stays with the message. Raises Unusable with the reason.
    """
    if not isinstance(turn, dict):
        raise Unusable("D2-S01", f"turn {index} is not an object")
    named = turn.get("role", turn.get("from", role))
    known = ROLES.get(str(named).lower())
    if known is None:
        raise Unusable("D2-S02", f"turn {index} has the role {str(named)[:30]!r}")
    content = turn.get("content", turn.get("value"))
    if not isinstance(content, str):
        content = _content(content, index)
    if turn.keys() <= _PLAIN:
        return Message(role=known, content=content)
    used = {"role" if "role" in turn else "from", "content" if "content" in turn else "value"}
    rest = {str(k): v for k, v in turn.items() if k not in used and k != "weight" and v is not None}
    return Message(role=known, content=content, **rest)


def read_turns(value: Any, name: str) -> tuple[Message, ...]:
    """Return a field that holds a list of turns, or such a list written as JSON text."""
    if isinstance(value, str):
        value = parse_json(value)
    if not isinstance(value, list):
        raise Unusable("D2-S01", f"{name!r} is not a list of turns")
    return tuple(read_turn(turn, index) for index, turn in enumerate(value, start=1))


def said(value: Any, role: Role) -> tuple[Message, ...]:
    """Return what one side said, in any of the forms that logs keep it.

    Known are a text, one turn, a list of turns, `{"messages": […]}`, a chat completion
    (`choices`), and the output list of the Responses API. Anything else is written as JSON.
    """
    if isinstance(value, str):
        inner = parse_json(value) if looks_like_turns(value) else None
        if inner is None or not is_turns(inner):
            return (Message(role=role, content=value),)
        value = inner
    if isinstance(value, dict):
        for key in ("messages", "choices", "output"):
            if isinstance(value.get(key), list) and value[key]:
                return _listed(value[key], role)
        if isinstance(value.get("message"), dict):
            return (read_turn(value["message"], 1, role),)
        if is_turn(value) or set(value) == {"content"}:
            return (read_turn(value, 1, role),)
        texts = [text for text in value.values() if isinstance(text, str)]
        if len(value) == 1 and texts:
            return (Message(role=role, content=texts[0]),)
    if isinstance(value, list) and value:
        return _listed(value, role)
    return (Message(role=role, content=as_text(value)),)


def is_turn(value: Any) -> bool:
    """Return whether a value is an object with a known role and something said."""
    if not isinstance(value, dict):
        return False
    named = value.get("role", value.get("from"))
    has = {"content", "value", "tool_calls", "function_call"} & value.keys()
    return bool(has) and str(named).lower() in ROLES


def is_turns(value: Any) -> bool:
    """Return whether a value is one turn, or a list of turns and nothing else."""
    if isinstance(value, list):
        return bool(value) and all(is_turn(item) for item in value)
    return is_turn(value)


def looks_like_turns(text: str) -> bool:
    """Return whether a text may be turns written as JSON; cheap, so that prose costs nothing."""
    return text.lstrip()[:1] in ("[", "{") and ('"role"' in text or '"from"' in text)


def as_text(value: Any) -> str:
    """Return a field's text: strings as they are, numbers plain, the rest as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _listed(values: Sequence[Any], role: Role) -> tuple[Message, ...]:
    first = values[0]
    if isinstance(first, dict) and isinstance(first.get("message"), dict):
        return (read_turn(first["message"], 1, role),)  # choices: the first answer
    if isinstance(first, dict) and first.get("type") in TEXT_PARTS:
        return (Message(role=role, content=_content(list(values), 1)),)
    if all(isinstance(item, dict) for item in values):
        spoken = [item for item in values if item.get("type") != "reasoning"]
        return tuple(read_turn(item, index, role) for index, item in enumerate(spoken, start=1))
    return (Message(role=role, content=as_text(list(values))),)


def _content(content: Any, index: int) -> str:
    if isinstance(content, list):
        return "".join(_part(part, index) for part in content)
    if content is None:
        return ""
    if not isinstance(content, str):
        raise Unusable("D2-S07", f"the content of turn {index} is a {type(content).__name__}")
    return content


def _part(part: Any, index: int) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    text = part.get("text") if isinstance(part, Mapping) else None
    if kind not in TEXT_PARTS or not isinstance(text, str):
        raise Unusable("D2-S07", f"turn {index} holds a part of type {str(kind)[:30]!r}")
    return text


def parse_json(text: str) -> Any:
    """Return the value of a JSON text, or None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
