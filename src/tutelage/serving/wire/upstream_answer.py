"""Reading what an engine answers: whole bodies, events of a stream, refusals; all of bounded size.

An answer that is not what OpenAI's API says is an error, never passed on as if it were complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.serving.wire.fast_json import decode
from tutelage.serving.wire.http_connection import Garbled, Reply
from tutelage.serving.wire.wire import HttpError

_MOST_ANSWER = 32 * 2**20  # bytes of a whole answer
_MOST_EVENT = 4 * 2**20  # bytes of one event
_END_S = 0.05  # wait for the end of a stream after its last event
_TOO_LONG = "context_length_exceeded"  # the one code of engines that clients act on
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Piece:
    """A part of a streamed answer; the last ones bring `finish_reason` and `usage`."""

    text: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, int] | None = None
    tool_calls: list[dict[str, Any]] | None = None  # deltas, as they came
    logprobs: Any = None


@dataclass(slots=True)
class Answer:
    """A whole answer."""

    text: str
    finish_reason: str
    usage: Mapping[str, int] = field(default_factory=dict)
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: Any = None


async def read_answer(reply: Reply, until: float) -> Answer:
    """Return the whole answer, by the loop's time `until`; raise HttpError 502 or 504."""
    raw = await _read(reply, until, _MOST_ANSWER)
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


async def _next(reply: Reply, until: float) -> bytes:
    """Return the next bytes of the body, none at its end; raise HttpError 502 or 504."""
    try:
        return await reply.read(until)
    except TimeoutError as error:
        raise timed_out() from error
    except (Garbled, ConnectionError) as error:
        raise broken(error) from error


async def _read(reply: Reply, until: float, most: int) -> bytes:
    """Return the body, up to a little more than `most` bytes."""
    raw = await _next(reply, until)
    if reply.ended and not reply.size:
        return raw
    parts, size = [raw], len(raw)
    while raw and size <= most:
        raw = await _next(reply, until)
        parts.append(raw)
        size += len(raw)
    return b"".join(parts)


class Events:
    """The server-sent events of one answer, up to [DONE].

    The first must come by the loop's time `first`, each next one within `idle_s` seconds, and all
    of them by `until`. The time that a client takes to read is not the engine's.
    """

    def __init__(self, reply: Reply, until: float, first: float, idle_s: float) -> None:
        self._reply, self._until, self._first, self._idle_s = reply, until, first, idle_s
        self._rest = b""  # of an event that is not whole yet
        self._failed: HttpError | None = None
        self._begun = self._done = False
        self._time = asyncio.get_running_loop().time

    async def next(self) -> list[Piece]:
        """Return the pieces that came together, none at the end; raise HttpError 502 or 504."""
        while not self._done:
            if self._failed is not None:
                raise self._failed
            within = self._time() + self._idle_s if self._begun else self._first
            data = await _next(self._reply, min(within, self._until))
            if not data:
                raise broken("the stream ended without [DONE]")
            if pieces := self._pieces(data):
                self._begun = True
                return pieces
        await self._end()
        return []

    def _pieces(self, data: bytes) -> list[Piece]:
        """Return what some more bytes bring; an error among them comes after what stood before."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        found: list[Piece] = []
        try:
            for line in lines:
                if not line.startswith(b"data:"):
                    continue  # a comment, which keeps the connection alive
                text = line[5:].strip()
                if text == b"[DONE]":
                    self._done = True
                    return found
                found.append(read_piece(_object(text)))
            if len(self._rest) > _MOST_EVENT:
                raise broken("an event is too large")
        except HttpError as error:
            if not found:
                raise
            self._failed = error
        return found

    async def _end(self) -> None:
        """Read what follows [DONE], so that the connection can be used again if it comes soon."""
        if self._reply.ended:
            return
        try:
            await self._reply.read(self._time() + _END_S)
        except (TimeoutError, ConnectionError, Garbled):
            _log.debug("a stream did not end after [DONE]")


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
        value = decode(raw)
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


async def refusal(reply: Reply, until: float = math.inf) -> HttpError:
    """Return what an engine's status other than 200 means to the client."""
    raw = (await _read(reply, until, 65_536))[:65_536]
    message, code = raw.decode(errors="replace")[:200], None
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        error = decode(raw)["error"]
        message, code = str(error["message"])[:500], error.get("code")
    if reply.status in (400, 413, 422):
        known = code if code == _TOO_LONG else "engine_refused"
        return HttpError(400, message or "The engine refused the request.", code=known)
    _log.warning("the engine answered %d: %s", reply.status, message)
    if reply.status == 404:
        return HttpError(
            503, "The release is not loaded yet; try again.", code="not_loaded", retry_after=1
        )
    if reply.status in (429, 503):
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
