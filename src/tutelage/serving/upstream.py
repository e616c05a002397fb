"""The gateway's way to the engine: whole answers and streams, with bounded waiting and retries.

A request is sent again only while no byte of an answer has been seen and only when the connection
itself failed. Engine errors become errors in OpenAI's shape; its own words stay out of 5xx bodies.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp

from tutelage.serving.telemetry import Telemetry
from tutelage.serving.wire import HttpError, encode

_RETRY_WAITS = (0.05, 0.25, 1.0)  # seconds before the second, third and fourth try
_CONNECT_S = 5.0
_log = logging.getLogger(__name__)


@dataclass
class Piece:
    """A part of a streamed answer; the last ones bring `finish_reason` and `usage`."""

    text: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, int] | None = None


@dataclass
class Answer:
    """A whole answer."""

    text: str
    finish_reason: str
    usage: Mapping[str, int] = field(default_factory=dict)


class Slots:
    """At most `running` requests at the engine and `waiting` in the queue; one more is a 429."""

    def __init__(self, running: int, waiting: int, telemetry: Telemetry) -> None:
        self._free = running
        self._size = running
        self._most_waiting = waiting
        self._queue: deque[asyncio.Future[None]] = deque()
        self._held_s = 0.5  # moving average of the time a slot is held
        self._telemetry = telemetry

    async def __aenter__(self) -> float:
        """Take a slot; return the time it was taken."""
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait()
        self._telemetry.running.inc()
        return time.perf_counter()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()
        self._telemetry.running.dec()

    def learn(self, held_s: float) -> None:
        """Tell how long one slot was held, for Retry-After."""
        self._held_s += 0.1 * (held_s - self._held_s)

    @property
    def retry_after(self) -> float:
        """Seconds until a newcomer may find room in the queue."""
        return self._held_s * (len(self._queue) + 1) / self._size

    def _release(self) -> None:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the slot passes on; `_free` stays
                return
        self._free += 1

    async def _wait(self) -> None:
        if len(self._queue) >= self._most_waiting:
            raise HttpError(
                429,
                "The queue is full; try again later.",
                code="queue_full",
                retry_after=self.retry_after,
            )
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        self._telemetry.waiting.inc()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._release()  # the slot came in the moment the client left
            elif waiter in self._queue:
                self._queue.remove(waiter)
            raise
        finally:
            self._telemetry.waiting.dec()


class Upstream:
    """A client of the engine. `base_url` is asked anew for each request: engines may restart."""

    def __init__(
        self,
        base_url: Callable[[], str],
        *,
        timeout_s: float = 120.0,
        api_key: str | None = None,
        model_name: Callable[[str], str] = str,
    ) -> None:
        self._base_url = base_url
        self._model_name = model_name
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._client: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pool, on the running loop."""
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            timeout=self._timeout,
            headers=self._headers,
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def complete(self, body: Mapping[str, Any]) -> Answer:
        """Return the whole answer; raise HttpError."""
        async with self._post(self._named(body, stream=False)) as response:
            with _engine_errors():
                raw = await response.read()
        return _answer(raw)

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[Piece, None]:
        """Yield the answer piece by piece; raise HttpError, also after some pieces."""
        asked = self._named(body, stream=True, stream_options={"include_usage": True})
        async with self._post(asked) as response, aclosing(_events(response)) as events:
            async for event in events:
                yield _piece(event)

    def _named(self, body: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        return {**body, "model": self._model_name(body["model"]), **more}

    @asynccontextmanager
    async def _post(self, body: Mapping[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        response = await self._connect(encode(body))
        try:
            if response.status != 200:
                raise await _refusal(response)
            yield response
        except BaseException:
            response.close()  # the engine sees the connection end and stops generating
            raise
        else:
            response.release()

    async def _connect(self, data: bytes) -> aiohttp.ClientResponse:
        if self._client is None:
            raise HttpError(503, "The gateway is starting.", code="starting", retry_after=1)
        for wait in (*_RETRY_WAITS, None):
            url = f"{self._base_url()}/v1/chat/completions"
            try:
                return await self._client.post(url, data=data)
            except TimeoutError as error:
                raise _timed_out() from error
            except (aiohttp.ClientConnectionError, OSError) as error:
                if wait is None:
                    _log.warning("the engine can't be reached: %s", error)
                    raise _unavailable() from error
            except aiohttp.ClientError as error:
                raise _broken(error) from error
            await asyncio.sleep(wait)
        raise _unavailable()


class _engine_errors:  # noqa: N801 - reads as a statement
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
            raise _timed_out() from error
        if isinstance(error, (aiohttp.ClientError, OSError)):
            raise _broken(error) from error


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the JSON of each server-sent event up to [DONE]."""
    buffer = b""
    chunks = response.content.iter_any()
    while True:
        with _engine_errors():
            chunk = await anext(chunks, None)
        if chunk is None:
            raise _broken("the stream ended without [DONE]")
        buffer += chunk
        while (end := buffer.find(b"\n")) >= 0:
            line, buffer = buffer[:end].strip(), buffer[end + 1 :]
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield _object(data)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise _broken(error) from error
    if not isinstance(value, dict):
        raise _broken("not a JSON object")
    return value


def _piece(event: Mapping[str, Any]) -> Piece:
    if "error" in event:
        raise _broken(event["error"])
    choices = event.get("choices") or []
    usage = _usage(event.get("usage"))
    if not choices:
        return Piece(usage=usage)
    delta = choices[0].get("delta") or {}
    return Piece(delta.get("content") or "", choices[0].get("finish_reason"), usage)


def _answer(raw: bytes) -> Answer:
    body = _object(raw)
    try:
        choice = body["choices"][0]
        text = choice["message"].get("content") or ""
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _broken(f"no choices ({error})") from error
    finish = choice.get("finish_reason") or "stop"
    return Answer(str(text), str(finish), _usage(body.get("usage")) or {})


def _usage(value: Any) -> dict[str, int] | None:
    if not isinstance(value, dict):
        return None
    return {k: v for k, v in value.items() if isinstance(v, int)}


async def _refusal(response: aiohttp.ClientResponse) -> HttpError:
    """Return what an engine's status other than 200 means to the client."""
    with _engine_errors():
        raw = (await response.read())[:4000]
    try:
        message = str(json.loads(raw)["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
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


def _timed_out() -> HttpError:
    return HttpError(504, "The engine took too long.", code="timeout")


def _unavailable() -> HttpError:
    return HttpError(
        503, "The engine can't be reached; try again.", code="engine_unavailable", retry_after=2
    )


def _broken(error: object) -> HttpError:
    _log.warning("the engine's answer broke off: %s", error)
    return HttpError(502, "The engine's answer broke off.", code="engine_error")
