"""The gateway's way to the engine: whole answers and streams, with bounded waiting and retries.

A request is sent again only while no byte of an answer has been seen: freely if it never left,
once if the connection ended after it had. Engine errors become errors in OpenAI's shape; its own
words stay out of 5xx bodies. How answers are read stands in upstream_answer.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from tutelage.serving.hooks import engine_headers
from tutelage.serving.wire.upstream_answer import (
    Answer,
    Piece,
    broken,
    events,
    read_answer,
    read_piece,
    refusal,
    timed_out,
    unavailable,
)
from tutelage.serving.wire.wire import HttpError, encode

_RETRY_WAITS = (0.05, 0.25, 1.0)  # seconds before the second, third and fourth try
_CONNECT_S = 5.0
_BUFFER = 16_384  # bytes read ahead of a client that reads slowly
_REFUSED = (404, 429, 503)  # not loaded, or no room: nothing was generated
_log = logging.getLogger(__name__)

__all__ = ["Answer", "Engine", "Engines", "Piece", "Upstream"]


@dataclass(frozen=True)
class Engine:
    """Where one request goes: a server, the name it knows the release by, and its key."""

    base_url: str  # without /v1
    model: str
    api_key: str | None = None


class Engines(Protocol):
    """Who can answer for a release: one engine, or several replicas."""

    def take(self, release: str) -> Engine:
        """Return the engine to ask; raise HttpError 503 if there is none. Asked at each try."""
        ...

    def give(self, engine: Engine, *, reached: bool, status: int | None = None) -> None:
        """Hear that the request is over, whether the engine could be reached, and its status."""
        ...

    def pass_on(self, engine: Engine, status: int) -> bool:
        """Return whether another may take what this one refused; if so, it is given back."""
        ...


class OneEngine:
    """A single engine. Its address is asked anew for each request: engines may restart."""

    def __init__(
        self,
        base_url: Callable[[], str],
        api_key: str | None = None,
        model_name: Callable[[str], str] = str,
    ) -> None:
        self._base_url, self._api_key, self._model_name = base_url, api_key, model_name

    def take(self, release: str) -> Engine:
        """Return the engine."""
        return Engine(self._base_url(), self._model_name(release), self._api_key)

    def give(self, engine: Engine, *, reached: bool, status: int | None = None) -> None:
        """Nothing to count: there is no other to ask."""

    def pass_on(self, engine: Engine, status: int) -> bool:
        """Return False: there is no other."""
        return False


class Upstream:
    """A client of the engines. `timeout_s` bounds a request, `first_token_s` the wait for a
    stream's first event and `idle_s` the wait between two.
    """

    def __init__(
        self,
        engines: Engines | Callable[[], str],
        *,
        timeout_s: float = 120.0,
        first_token_s: float | None = None,
        idle_s: float = 60.0,
        api_key: str | None = None,
        model_name: Callable[[str], str] = str,
    ) -> None:
        self.engines: Engines
        if callable(engines):
            self.engines = OneEngine(engines, api_key, model_name)
        else:
            self.engines = engines
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)
        self._first_s, self._idle_s = first_token_s or timeout_s, idle_s
        self._client: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pool, on the running loop."""
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            timeout=self._timeout,
            headers={"content-type": "application/json"},
            auto_decompress=False,
            skip_auto_headers=("accept-encoding", "accept", "user-agent"),
            read_bufsize=_BUFFER,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def complete(self, body: Mapping[str, Any]) -> Answer:
        """Return the whole answer; raise HttpError."""
        async with self._post(body) as response:
            return await read_answer(response)

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[Piece, None]:
        """Yield the answer piece by piece; raise HttpError, also after some pieces."""
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        loop = asyncio.get_running_loop()
        until = loop.time() + self._first_s
        async with (
            self._post(asked, until) as response,
            aclosing(events(response, until, self._idle_s)) as found,
        ):
            async for event in found:
                yield read_piece(event)

    @asynccontextmanager
    async def _post(
        self, body: Mapping[str, Any], until: float | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        engine, response = await self._connect(body, until)
        try:
            if response.status != 200:
                raise await refusal(response)
            yield response
        except BaseException:
            response.close()  # the engine sees the connection end and stops generating
            raise
        else:
            response.release()
        finally:
            self.engines.give(engine, reached=True, status=response.status)

    async def _connect(
        self, body: Mapping[str, Any], until: float | None
    ) -> tuple[Engine, aiohttp.ClientResponse]:
        """Return who answers and its response's head; raise HttpError."""
        sent = 0  # tries that may have reached an engine
        for wait in (*_RETRY_WAITS, None):
            engine = self.engines.take(body["model"])
            try:
                async with asyncio.timeout_at(until):
                    response = await self._send(engine, body)
            except BaseException as error:
                failed = _failed(error)
                self.engines.give(engine, reached=not failed)
                if not failed:
                    meaning = _meaning(error)
                    if meaning is None:
                        raise
                    raise meaning from error
                sent += not isinstance(error, aiohttp.ClientConnectorError)
                if wait is None or sent > 1:
                    _log.warning("the engine can't be reached: %s", error or type(error).__name__)
                    raise unavailable() from error
            else:
                refused = response.status in _REFUSED and wait is not None
                if not (refused and self.engines.pass_on(engine, response.status)):
                    return engine, response
                response.close()
                continue
            await asyncio.sleep(wait)
        raise unavailable()

    async def _send(self, engine: Engine, body: Mapping[str, Any]) -> aiohttp.ClientResponse:
        if self._client is None:
            raise HttpError(503, "The gateway is starting.", code="starting", retry_after=1)
        return await self._client.post(
            f"{engine.base_url}/v1/chat/completions",
            data=encode({**body, "model": engine.model}),
            headers=_headers(engine),
            allow_redirects=False,
        )


def _failed(error: BaseException) -> bool:
    """Return whether the connection failed, rather than the request."""
    if isinstance(error, TimeoutError):
        return isinstance(error, aiohttp.ConnectionTimeoutError)
    return isinstance(error, (aiohttp.ClientConnectionError, OSError))


def _meaning(error: BaseException) -> HttpError | None:
    """Return what a request's own failure is to the client; None for what is not one."""
    if isinstance(error, TimeoutError):
        return timed_out()
    return broken(error) if isinstance(error, aiohttp.ClientError) else None


def _headers(engine: Engine) -> dict[str, str]:
    own = {"authorization": f"Bearer {engine.api_key}"} if engine.api_key else {}
    return {**(engine_headers.get() or {}), **own}
