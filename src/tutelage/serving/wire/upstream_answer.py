"""Reading what an engine answers: whole bodies, events of a stream, refusals; all of bounded size.

An answer that is not what OpenAI's API says is an error, never passed on as if it were complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp

from tutelage.serving.wire.wire import HttpError

_MOST_ANSWER = 32 * 2**20  # bytes of a whole answer
_MOST_EVENT = 4 * 2**20  # bytes of one event
_END_S = 0.05  # wait for the end of a stream after its last event
_log = logging.getLogger(__name__)


@dataclass
class Piece:
    """A part of a streamed answer; the last ones bring `finish_reason` and `usage`."""

    text: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, int] | None = None
    tool_calls: list[dict[str, Any]] | None = None  # deltas, as they came
    logprobs: Any = None


@dataclass
class Answer:
    """A whole answer."""

    text: str
    finish_reason: str
    usage: Mapping[str, int] = field(default_factory=dict)
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: Any = None


class engine_errors:  # noqa: N801 - reads as a statement
    """Turn what reading an answer can raise into HttpError."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, TimeoutError):
            raise timed_out() from error
        if isinstance(error, (aiohttp.ClientError, OSError)):
            raise broken(error) from error


async def read_answer(response: aiohttp.ClientResponse) -> Answer:
    """Return the whole answer in a response; raise HttpError 502 or 504."""
    with engine_errors():
        raw = await _read(response, _MOST_ANSWER)
    if len(raw) > _MOST_ANSWER:
        raise broken("it is too large")
    body = _object(raw)
    try:
        choice = body["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise broken(f"no choices ({error})") from error
    return Answer(
        str(text),
        str(choice.get("finish_reason") or "stop"),
        _usage(body.get("usage")) or {},
        _calls(message.get("tool_calls")),
        choice.get("logprobs"),
    )


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the body, up to a little more than `most` bytes."""
    if response.content_length is not None and response.content_length <= most:
        return await response.read()
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > most:
            break
    return bytes(raw)


async def events(
    response: aiohttp.ClientResponse, until: float, idle_s: float
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the JSON of each server-sent event up to [DONE].

    The first must come by the loop's time `until`, each next one within `idle_s` seconds.
    """
    loop = asyncio.get_running_loop()
    buffer, begun = b"", False
    while True:
        with engine_errors():
            async with asyncio.timeout_at(until):
                chunk = await response.content.readany()
        if not chunk:
            raise broken("the stream ended without [DONE]")
        *lines, buffer = (buffer + chunk).split(b"\n")
        if len(buffer) > _MOST_EVENT:
            raise broken("an event is too large")
        for line in lines:
            if not line.startswith(b"data:"):
                continue  # a comment, which keeps the connection alive
            data = line[5:].strip()
            if data == b"[DONE]":
                await _read_end(response)
                return
            begun = True
            yield _object(data)
        if begun:
            until = loop.time() + idle_s


async def _read_end(response: aiohttp.ClientResponse) -> None:
    """Read what follows [DONE], so that the connection can be used again if it comes soon."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(_END_S):
            await response.content.readany()


def read_piece(event: Mapping[str, Any]) -> Piece:
    """Return what one event of a stream brings; raise HttpError 502."""
    if "error" in event:
        raise broken(event["error"])
    usage = _usage(event.get("usage"))
    choices = event.get("choices")
    if not choices:
        return Piece(usage=usage)
    try:
        choice = choices[0]
        delta = choice.get("delta") or {}
        return Piece(
            str(delta.get("content") or ""),
            choice.get("finish_reason"),
            usage,
            _calls(delta.get("tool_calls")),
            choice.get("logprobs"),
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise broken(f"no choice ({error})") from error


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise broken(error) from error
    if not isinstance(value, dict):
        raise broken("not a JSON object")
    return value


def _calls(value: Any) -> list[dict[str, Any]] | None:
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(call, dict) for call in value):
        raise broken("its tool calls are no list of objects")
    return value


def _usage(value: Any) -> dict[str, int] | None:
    if not isinstance(value, dict):
        return None
    found = {k: v for k, v in value.items() if isinstance(v, int)}
    details = value.get("prompt_tokens_details")
    if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
        found["cached_tokens"] = details["cached_tokens"]
    return found


async def refusal(response: aiohttp.ClientResponse) -> HttpError:
    """Return what an engine's status other than 200 means to the client."""
    with engine_errors():
        raw = (await _read(response, 65_536))[:65_536]
    try:
        message = str(json.loads(raw)["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = raw.decode(errors="replace")[:200]
    if response.status in (400, 413, 422):
        return HttpError(400, message or "The engine refused the request.", code="engine_refused")
    _log.warning("the engine answered %d: %s", response.status, message)
    if response.status == 404:
        return HttpError(
            503, "The release is not loaded yet; try again.", code="not_loaded", retry_after=1
        )
    if response.status in (429, 503):
        return HttpError(503, "The engine is busy; try again.", code="engine_busy", retry_after=1)
    return HttpError(502, "The engine failed on this request.", code="engine_error")


def timed_out() -> HttpError:
    """Return the error for an engine that is too slow."""
    return HttpError(504, "The engine took too long.", code="timeout")


def unavailable() -> HttpError:
    """Return the error for an engine that can't be reached."""
    return HttpError(
        503, "The engine can't be reached; try again.", code="engine_unavailable", retry_after=2
    )


def broken(error: object) -> HttpError:
    """Return the error for an answer that is not one."""
    _log.warning("the engine's answer broke off: %s", error)
    return HttpError(502, "The engine's answer broke off.", code="engine_error")
