"""Reads one OpenAI chat request strictly: what the engine can't honour is refused, not ignored.

llama.cpp answers a wrong schema or an unknown field by ignoring it; here it is a 400 that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.core.errors import nearest
from tutelage.inference.base import Decoding
from tutelage.inference.engine_problem import RequestProblem
from tutelage.inference.engine_schema import schema_problem
from tutelage.inference.engine_tools import Tools, calls_of, read_tools

ROLES = ("system", "developer", "user", "assistant", "tool")
_IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
_KNOWN = {
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens",
    "temperature", "top_p", "seed", "stop", "response_format", "logprobs", "top_logprobs", "n",
    "presence_penalty", "frequency_penalty", "tools", "tool_choice", "parallel_tool_calls",
}  # fmt: skip


@dataclass(frozen=True)
class ChatRequest:
    """One request, checked. `top_logprobs` is None when no log-probabilities are wanted."""

    release: str
    messages: tuple[dict[str, Any], ...]
    decoding: Decoding = Decoding()
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stream: bool = False
    include_usage: bool = False
    top_logprobs: int | None = None
    tools: Tools | None = None


def parse_request(body: Any) -> ChatRequest:
    """Return the checked request; raise RequestProblem naming the field that is wrong.

    Left out: temperature 0 and 256 tokens, as in Decoding, so that answers are repeatable.
    """
    if not isinstance(body, Mapping):
        raise RequestProblem("the body must be a JSON object")
    for key in body.keys() - _KNOWN - _IGNORED:
        near = nearest(key, sorted(_KNOWN))
        hint = f"; did you mean {near!r}?" if near else ""
        raise RequestProblem(f"this engine does not know the field {key!r}{hint}")
    if body.get("n") not in (None, 1):
        raise RequestProblem("n must be 1")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise RequestProblem("model must be a release id")
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    options = body.get("stream_options") or {}
    messages = _messages(body.get("messages"))
    return ChatRequest(
        release=model,
        messages=messages,
        decoding=Decoding(
            temperature=_number(body, "temperature", 0.0, 0, 2),
            max_tokens=256 if limit is None else _count(limit, "max_tokens"),
            stop=_stop(body.get("stop")),
            seed=0 if body.get("seed") is None else _count(body["seed"], "seed", low=-(2**31)),
            json_schema=_schema(body.get("response_format")),
        ),
        top_p=_number(body, "top_p", 1.0, 0, 1),
        presence_penalty=_number(body, "presence_penalty", 0.0, -2, 2),
        frequency_penalty=_number(body, "frequency_penalty", 0.0, -2, 2),
        stream=bool(body.get("stream")),
        include_usage=bool(options.get("include_usage")),
        top_logprobs=_top_logprobs(body),
        tools=read_tools(body, messages),
    )


def _messages(value: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list) or not value:
        raise RequestProblem("messages must be a list with at least one message")
    return tuple(_message(place, message) for place, message in enumerate(value))


def _message(place: int, message: Any) -> dict[str, Any]:
    where = f"messages[{place}]"
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise RequestProblem(f"{where}.role must be one of {', '.join(ROLES)}")
    calls = calls_of(where, message)
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(where, part) for part in content)
    if content is None and "tool_calls" in calls:
        content = ""
    if not isinstance(content, str):
        raise RequestProblem(f"{where}.content must be text")
    role = "system" if message["role"] == "developer" else message["role"]
    return {"role": role, "content": content, **calls}


def _part(where: str, part: Any) -> str:
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
        raise RequestProblem(f"{where}.content may only hold text parts")
    return str(part["text"])


def _number(body: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    value = body.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestProblem(f"{key} must be a number from {low:g} to {high:g}")
    return float(value)


def _count(value: Any, key: str, low: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise RequestProblem(f"{key} must be a whole number of at least {low}")
    return value


def _stop(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else (value or [])
    if not isinstance(texts, list) or not all(isinstance(t, str) and t for t in texts):
        raise RequestProblem("stop must be a text or a list of texts")
    return tuple(texts)


def _top_logprobs(body: Mapping[str, Any]) -> int | None:
    if not body.get("logprobs"):
        return None
    return int(_number(body, "top_logprobs", 0, 0, 20))


def _schema(value: Any) -> dict[str, Any] | None:
    """Return the JSON Schema an answer must meet; one that can't be enforced is refused."""
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind != "json_schema":
        raise RequestProblem("response_format.type must be text, json_object or json_schema")
    schema: dict[str, Any] | None = (value.get("json_schema") or {}).get("schema")
    if problem := schema_problem(schema):
        raise RequestProblem(problem)
    return schema
