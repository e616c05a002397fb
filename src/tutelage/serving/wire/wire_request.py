"""Chat requests read and checked: what can't be honoured is refused with the parameter's name.

A release brings its own decoding, because that is what was evaluated: parameters that would change
it (temperature, penalties) are reported as ignored. Tools, logprobs, stop and a JSON form are the
client's and go to the engine as they came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.core.example import Message, Role
from tutelage.serving.wire.fast_json import decode
from tutelage.serving.wire.wire import HttpError, bad
from tutelage.serving.wire.wire_tools import call_fields, read_form, read_tools

_MOST_MESSAGES = 4096
_MOST_DEEP = 32  # levels of nesting in what goes on to the engine
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_REFUSED = ("functions", "function_call", "audio", "prediction")
_IGNORED = (
    "temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias",
    "reasoning_effort", "verbosity", "web_search_options",
)  # fmt: skip


@dataclass(slots=True)
class ChatRequest:
    """A checked request. `ignored` names parameters that the release's decoding overrides.

    `passed` holds what goes to the engine as it came: tools, tool_choice, parallel_tool_calls,
    logprobs, top_logprobs.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    max_tokens: int | None
    stop: tuple[str, ...]
    response_format: dict[str, Any] | None
    user: str | None
    metadata: Mapping[str, Any]
    ignored: tuple[str, ...]
    seed: int | None = None
    passed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_tools(self) -> bool:
        """Whether the answer may be a call of a tool."""
        return "tools" in self.passed


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def _read(raw: bytes) -> Any:
    return _decode(raw.decode())


def parse_json(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in a request's body; raise HttpError 400 otherwise."""
    try:
        body = decode(raw, _read)
    except RecursionError:
        raise _invalid("it is nested too deep") from None
    except UnicodeDecodeError as error:
        raise _invalid(f"byte {error.start} is not UTF-8") from None
    except ValueError as error:
        raise _invalid(str(error)[:200]) from None
    if not isinstance(body, dict):
        raise HttpError(400, "The body must be a JSON object.", code="invalid_json")
    return body


def _invalid(reason: str) -> HttpError:
    return HttpError(400, f"The body is not valid JSON: {reason}.", code="invalid_json")


def parse_chat(body: Mapping[str, Any]) -> ChatRequest:
    """Return the checked request; raise HttpError 400 naming the parameter that is wrong."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise bad("model", "'model' must be the name of a deployment.")
    _refuse(body)
    options = _object(body, "stream_options")
    stream = _flag(body, "stream")
    user = body.get("user") or body.get("safety_identifier")
    if user is not None and not isinstance(user, str):
        raise bad("user", "'user' must be a string.")
    return ChatRequest(
        model=model,
        messages=_messages(body.get("messages")),
        stream=stream,
        include_usage=stream and options.get("include_usage") is True,
        max_tokens=_max_tokens(body),
        stop=_stop(body.get("stop")),
        response_format=read_form(body.get("response_format")),
        user=user,
        metadata=_object(body, "metadata"),
        ignored=tuple(name for name in _IGNORED if body.get(name) is not None),
        seed=_integer(body, "seed"),
        passed={**read_tools(body), **_logprobs(body)},
    )


def _refuse(body: Mapping[str, Any]) -> None:
    if body.get("n") not in (None, 1):
        raise bad(
            "n", "Only n=1 is supported: send several requests instead.", "unsupported_parameter"
        )
    for name in _REFUSED:
        if body.get(name) not in (None, [], "none", "auto"):
            hint = ": use 'tools' instead" if name.startswith("function") else ""
            raise bad(name, f"'{name}' is not supported here{hint}.", "unsupported_parameter")
    if body.get("modalities") not in (None, ["text"]):
        raise bad("modalities", "Only text is answered here.", "unsupported_parameter")
    for name in ("tools", "response_format", "metadata"):
        if too_deep(body.get(name)):
            raise bad(name, f"'{name}' is nested deeper than {_MOST_DEEP} levels.")


def too_deep(value: Any, most: int = _MOST_DEEP) -> bool:
    """Return whether lists and objects stand in one another more than `most` levels deep."""
    if not isinstance(value, (dict, list)):
        return False
    level = [value]
    for _ in range(most):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = [item for item in inner if isinstance(item, (dict, list))]
        if not level:
            return False
    return True


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad(name, f"'{name}' must be an object.")
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise bad(name, f"'{name}' must be true or false.")


def _integer(
    body: Mapping[str, Any], name: str, least: int = -(2**63), most: int = 2**63 - 1
) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        known = f" from {least} to {most}" if most < 2**31 else f" of {least} or more"
        raise bad(name, f"'{name}' must be an integer{known if least > -1000 else ''}.")
    return value


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    newer = _integer(body, "max_completion_tokens", 1)
    return newer if newer is not None else _integer(body, "max_tokens", 1)


def _logprobs(body: Mapping[str, Any]) -> dict[str, Any]:
    asked = _flag(body, "logprobs")
    top = _integer(body, "top_logprobs", 0, 20)
    if top and not asked:
        raise bad("top_logprobs", "'top_logprobs' needs 'logprobs' to be true.")
    found: dict[str, Any] = {"logprobs": True} if asked else {}
    return {**found, "top_logprobs": top} if top else found


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or len(items) > 8 or not all(_filled(item) for item in items):
        raise bad("stop", "'stop' must be a string or a list of at most 8 strings.")
    return tuple(items)


def _filled(item: Any) -> bool:
    return isinstance(item, str) and item != ""


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise bad("messages", "'messages' must be a list with at least one message.")
    if len(value) > _MOST_MESSAGES:
        raise bad("messages", f"'messages' holds more than {_MOST_MESSAGES:,} messages.")
    found = tuple(_message(item, f"messages[{i}]") for i, item in enumerate(value))
    if all(turn.role == "system" for turn in found):
        raise bad("messages", "'messages' must hold a user's message, not only instructions.")
    return found


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise bad(where, f"'{where}' must be an object with 'role' and 'content'.")
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise bad(f"{where}.role", f"'{where}.role' must be one of {', '.join(_ROLES)}.")
    content = item.get("content")
    if len(item) == 2 and isinstance(content, str) and role != "tool":
        return Message(role=_ROLES[role], content=content)
    more = call_fields(item, where)
    text = "" if content in (None, "") and "tool_calls" in more else _content(content, where)
    return Message(role=_ROLES[role], content=text, **more)


def _content(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        return "\n".join(_part(part, where) for part in value)
    raise bad(f"{where}.content", f"'{where}.content' must be a string or a list of text parts.")


def _part(part: Any, where: str) -> str:
    kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
    text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, dict) else None
    if kind not in ("text", "refusal") or not isinstance(text, str):
        raise bad(
            f"{where}.content",
            f"'{where}.content' holds a part of type {kind!r}; only text is supported."[:300],
            "unsupported_content",
        )
    return text
