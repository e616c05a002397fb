"""OpenAI's HTTP shapes on the way out: answers, chunks of a stream, errors.

Nothing here knows of releases, the store or the engine. Requests are read by wire_request.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from tutelage.core.errors import nearest
from tutelage.serving.wire.fast_json import encode

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


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
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after = retry_after  # seconds
        self.headers = headers or {}

    @property
    def kind(self) -> str:
        """OpenAI's `type`: by the status, but for a spent budget."""
        if self.code == "insufficient_quota":
            return self.code
        fallback = "server_error" if self.status >= 500 else "invalid_request_error"
        return _KINDS.get(self.status, fallback)

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
        """Return the HTTP response. Retry-After is in whole seconds, rounded up."""
        extra = {**(headers or {}), **self.headers}
        if self.retry_after is not None:
            extra["retry-after"] = str(max(1, -int(-self.retry_after // 1)))
        if self.status == 401:
            extra["www-authenticate"] = "Bearer"
        return json_response(self.body(), self.status, extra)


def bad(param: str, message: str, code: str = "invalid_value") -> HttpError:
    """Return the 400 for a parameter that can't be honoured."""
    return HttpError(400, message, code=code, param=param)


def unknown_model(name: str, known: Sequence[str]) -> HttpError:
    """Return the 404 for a deployment that is not among those the caller may know of."""
    near = nearest(name, list(known))
    hint = f" Did you mean '{near}'?" if near else ""
    listed = ", ".join(sorted(known)) or "none yet"
    return HttpError(
        404,
        f"The model '{name[:80]}' does not exist.{hint} Deployments: {listed}.",
        code="model_not_found",
        param="model",
    )


def json_response(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return `body` as JSON. Lone surrogates stay escaped, so any text can be sent."""
    return Response(encode(body), status, media_type="application/json", headers=headers)


def completion_body(
    record: str,
    model: str,
    message: Mapping[str, Any],
    finish_reason: str,
    usage: Mapping[str, int],
    *,
    logprobs: Any = None,
    fingerprint: str | None = None,
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
                "message": message,
                "logprobs": logprobs,
                "finish_reason": finish_reason,
            }
        ],
        "usage": usage_body(usage),
        "system_fingerprint": fingerprint,
    }


class ChunkWriter:
    """Writes the server-sent events of one stream; what all of them share is encoded once."""

    def __init__(self, record: str, model: str, fingerprint: str, *, with_usage: bool) -> None:
        shared = {
            "id": record,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }
        self._head = b"data: " + encode(shared)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if with_usage else b"]}\n\n"

    def chunk(
        self, delta: Mapping[str, Any], finish: str | None = None, logprobs: Any = None
    ) -> bytes:
        """Return the event of one piece."""
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._head + encode(choice) + self._tail

    def usage(self, usage: Mapping[str, int]) -> bytes:
        """Return the last event of a stream whose client asked for usage."""
        return self._head + b'],"usage":' + encode(usage_body(usage)) + b"}\n\n"


def error_event(error: HttpError) -> bytes:
    """Return the event that ends a stream which broke after its first byte."""
    return b"data: " + encode(error.body()) + b"\n\n"


def usage_body(usage: Mapping[str, int]) -> dict[str, Any]:
    """Return OpenAI's usage object, with the tokens found in the prompt cache if known."""
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    body: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if "cached_tokens" in usage:
        body["prompt_tokens_details"] = {"cached_tokens": usage["cached_tokens"]}
    return body
