"""The gateway's way to the engine: whole answers and streams, with bounded waiting and retries.

A request is sent again only while no byte of an answer has been seen: freely if it never left,
once if the connection ended after it had. Engine errors become errors in OpenAI's shape; its own
words stay out of 5xx bodies. How answers are read stands in upstream_answer.py.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from tutelage.serving.hooks import engine_headers
from tutelage.serving.wire.fast_json import encode
from tutelage.serving.wire.http_client import HttpClient, NotConnected
from tutelage.serving.wire.http_connection import Garbled, Reply
from tutelage.serving.wire.upstream_answer import (
    Answer,
    Events,
    Piece,
    broken,
    read_answer,
    refusal,
    timed_out,
    unavailable,
)
from tutelage.serving.wire.wire import HttpError

_RETRY_WAITS = (0.05, 0.25, 1.0)  # seconds before the second, third and fourth try
_CONNECT_S = 5.0
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
        self._timeout_s, self._first_s = timeout_s, first_token_s or timeout_s
        self._idle_s = idle_s
        self._client: HttpClient | None = None

    async def start(self) -> None:
        """Open the connection pool, on the running loop."""
        self._client = HttpClient(connect_s=_CONNECT_S)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def complete(self, body: Mapping[str, Any]) -> Answer:
        """Return the whole answer; raise HttpError."""
        until = asyncio.get_running_loop().time() + self._timeout_s
        engine, reply = await self._connect(body, until, math.inf)
        with _Held(self.engines, engine, reply):
            if reply.status != 200:
                raise await refusal(reply, until)
            return await read_answer(reply, until)

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[list[Piece], None]:
        """Yield the answer piece by piece, together what came together.

        Raises HttpError, also after some pieces.
        """
        now = asyncio.get_running_loop().time()
        until, first = now + self._timeout_s, now + self._first_s
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        engine, reply = await self._connect(asked, until, first)
        with _Held(self.engines, engine, reply):
            if reply.status != 200:
                raise await refusal(reply, until)
            events = Events(reply, until, first, self._idle_s)
            while pieces := await events.next():
                yield pieces

    async def _connect(
        self, body: Mapping[str, Any], until: float, first: float
    ) -> tuple[Engine, Reply]:
        """Return who answers and its answer's head; raise HttpError."""
        sent = 0  # tries that may have reached an engine
        for wait in (*_RETRY_WAITS, None):
            engine = self.engines.take(body["model"])
            try:
                reply = await self._send(engine, body, min(until, first))
            except BaseException as error:
                failed = isinstance(error, ConnectionError)
                self.engines.give(engine, reached=not failed)
                if not failed:
                    meaning = _meaning(error)
                    if meaning is None:
                        raise
                    raise meaning from error
                sent += not isinstance(error, NotConnected)
                if wait is None or sent > 1:
                    _log.warning("the engine can't be reached: %s", error)
                    raise unavailable() from error
            else:
                refused = reply.status in _REFUSED and wait is not None
                if not (refused and self.engines.pass_on(engine, reply.status)):
                    return engine, reply
                reply.close()
                continue
            await asyncio.sleep(wait)
        raise unavailable()

    async def _send(self, engine: Engine, body: Mapping[str, Any], until: float) -> Reply:
        if self._client is None:
            raise HttpError(503, "The gateway is starting.", code="starting", retry_after=1)
        return await self._client.post(
            f"{engine.base_url}/v1/chat/completions",
            encode({**body, "model": engine.model}),
            _headers(engine),
            until,
        )


class _Held:
    """An engine's answer while it is read: given back at its end, broken off by an error."""

    __slots__ = ("_engine", "_engines", "_reply")

    def __init__(self, engines: Engines, engine: Engine, reply: Reply) -> None:
        self._engines, self._engine, self._reply = engines, engine, reply

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._reply.release()
        else:
            self._reply.close()  # the engine sees the connection end and stops generating
        self._engines.give(self._engine, reached=True, status=self._reply.status)


def _meaning(error: BaseException) -> HttpError | None:
    """Return what a request's own failure is to the client; None for what is not one."""
    if isinstance(error, TimeoutError):
        return timed_out()
    return broken(error) if isinstance(error, Garbled) else None


def _headers(engine: Engine) -> Mapping[str, str]:
    passed = engine_headers.get() or {}
    if not engine.api_key:
        return passed
    return {**passed, "authorization": f"Bearer {engine.api_key}"}
