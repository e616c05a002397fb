"""OpenAI's HTTP shapes: requests read and checked, answers, chunks and errors written.

Nothing here knows of releases, the store or the engine. What can't be honoured is refused with
the parameter's name (`n`, tools, images) or reported as ignored (temperature, logprobs): a
release brings its own decoding, because that is what was evaluated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from tutelage.core.example import Message, Role

MAX_BODY = 4 * 1024 * 1024  # bytes
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_REFUSED = ("tools", "functions", "tool_choice", "function_call", "audio", "prediction")
_IGNORED = (
    "temperature", "top_p", "seed", "frequency_penalty", "presence_penalty", "logit_bias",
    "logprobs", "top_logprobs", "reasoning_effort", "verbosity", "web_search_options",
)  # fmt: skip


class HttpError(Exception):
    """An answer other than 200, in OpenAI's error shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after = retry_after  # seconds

    @property
    def kind(self) -> str:
        """OpenAI's `type` for the status."""
        known = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        if self.status in known:
            return known[self.status]
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Return the HTTP response."""
        extra = dict(headers or {})
        if self.retry_after is not None:
            extra["retry-after"] = str(max(1, round(self.retry_after)))
        if self.status == 401:
            extra["www-authenticate"] = "Bearer"
        return json_response(self.body(), self.status, extra)


@dataclass(frozen=True)
class ChatRequest:
    """A checked request. `ignored` names parameters that the release's decoding overrides."""

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


def json_response(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return `body` as JSON. Lone surrogates stay escaped, so any text can be sent."""
    return Response(
        encode(body), status, media_type="application/json", headers=dict(headers or {})
    )


def encode(body: Any) -> bytes:
    """Return compact JSON, ASCII, so that lone surrogates survive."""
    return json.dumps(body, separators=(",", ":"), default=str).encode()


def parse_json(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in a request's body; raise HttpError 400 otherwise."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise HttpError(
            400, f"The body is not valid JSON: {reason}.", code="invalid_json"
        ) from None
    if not isinstance(body, dict):
        raise HttpError(400, "The body must be a JSON object.", code="invalid_json")
    return body


def parse_chat(body: Mapping[str, Any]) -> ChatRequest:
    """Return the checked request; raise HttpError 400 naming the parameter that is wrong."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _bad("model", "'model' must be the name of a deployment.")
    _refuse(body)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _bad("stream_options", "'stream_options' must be an object.")
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise _bad("metadata", "'metadata' must be an object.")
    form = body.get("response_format")
    if form is not None and not isinstance(form, dict):
        raise _bad("response_format", "'response_format' must be an object.")
    user = body.get("user") or body.get("safety_identifier")
    if user is not None and not isinstance(user, str):
        raise _bad("user", "'user' must be a string.")
    return ChatRequest(
        model=model,
        messages=_messages(body.get("messages")),
        stream=_flag(body, "stream"),
        include_usage=options.get("include_usage") is True,
        max_tokens=_max_tokens(body),
        stop=_stop(body.get("stop")),
        response_format=form,
        user=user,
        metadata=metadata,
        ignored=tuple(name for name in _IGNORED if body.get(name) is not None),
    )


def _bad(param: str, message: str, code: str = "invalid_value") -> HttpError:
    return HttpError(400, message, code=code, param=param)


def _refuse(body: Mapping[str, Any]) -> None:
    if body.get("n") not in (None, 1):
        raise _bad(
            "n", "Only n=1 is supported: send several requests instead.", "unsupported_parameter"
        )
    for name in _REFUSED:
        if body.get(name) not in (None, [], "none", "auto"):
            raise _bad(name, f"'{name}' is not supported here.", "unsupported_parameter")


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _bad(name, f"'{name}' must be true or false.")


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise _bad(name, f"'{name}' must be an integer of 1 or more.")
            return value
    return None


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or len(items) > 8 or not all(_filled(item) for item in items):
        raise _bad("stop", "'stop' must be a string or a list of at most 8 strings.")
    return tuple(items)


def _filled(item: Any) -> bool:
    return isinstance(item, str) and item != ""


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _bad("messages", "'messages' must be a list with at least one message.")
    found = tuple(_message(item, f"messages[{i}]") for i, item in enumerate(value))
    if all(turn.role == "system" for turn in found):
        raise _bad("messages", "'messages' must hold a user's message, not only instructions.")
    return found


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise _bad(where, f"'{where}' must be an object with 'role' and 'content'.")
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise _bad(f"{where}.role", f"'{where}.role' must be one of {', '.join(_ROLES)}.")
    return Message(role=_ROLES[role], content=_content(item.get("content"), where))


def _content(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        texts = []
        for part in value:
            if not isinstance(part, dict) or not isinstance(part.get("text"), str):
                kind = part.get("type") if isinstance(part, dict) else type(part).__name__
                raise _bad(
                    f"{where}.content",
                    f"'{where}.content' holds a part of type {kind!r}; only text is supported.",
                    "unsupported_content",
                )
            texts.append(part["text"])
        return "\n".join(texts)
    raise _bad(f"{where}.content", f"'{where}.content' must be a string or a list of text parts.")


def completion_body(
    record: str, model: str, text: str, finish_reason: str, usage: Mapping[str, int]
) -> dict[str, Any]:
    """Return the body of a whole answer."""
    return {
        "id": record,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": usage_body(usage),
    }


def chunk_event(
    record: str,
    model: str,
    created: int,
    delta: Mapping[str, Any] | None,
    finish: str | None = None,
) -> bytes:
    """Return one server-sent event of a stream."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    body = {"id": record, "object": "chat.completion.chunk", "created": created, "model": model}
    return b"data: " + encode({**body, "choices": [choice]}) + b"\n\n"


def usage_event(record: str, model: str, created: int, usage: Mapping[str, int]) -> bytes:
    """Return the last event of a stream whose client asked for usage."""
    body = {"id": record, "object": "chat.completion.chunk", "created": created, "model": model}
    return b"data: " + encode({**body, "choices": [], "usage": usage_body(usage)}) + b"\n\n"


def error_event(error: HttpError) -> bytes:
    """Return the event that ends a stream which broke after its first byte."""
    return b"data: " + encode(error.body()) + b"\n\n"


def usage_body(usage: Mapping[str, int]) -> dict[str, int]:
    """Return OpenAI's usage object."""
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
