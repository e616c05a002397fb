"""A small HTTP/1.1 client for asking engines: connections are kept, memory and waiting bounded.

It posts JSON and hands on a status and a body as it comes. It follows no redirects, unpacks
nothing, keeps no cookies and uses no proxy.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import NamedTuple
from urllib.parse import urlsplit

from tutelage.serving.wire.http_connection import EARLY_S, Connection, Garbled, Reply

_SYSTEM = 65_536  # bytes the system may hold of what an engine sends


class NotConnected(ConnectionError):
    """There is no connection: nothing was sent."""


class ConnectTimeout(ConnectionError):
    """The connection was not made in time."""


class Target(NamedTuple):
    """Where requests to a URL go, and the beginning of their head."""

    host: str
    port: int
    secure: bool
    head: bytes


@lru_cache(maxsize=256)
def target_of(url: str) -> Target:
    """Return the target of a URL; raise NotConnected for one that names no server."""
    try:
        parts = urlsplit(url)
        secure, host = parts.scheme == "https", parts.hostname or ""
        port = parts.port or (443 if secure else 80)
        name = parts.netloc.rpartition("@")[2].encode("idna" if not host.isascii() else "ascii")
    except (ValueError, UnicodeError) as error:
        raise NotConnected(f"{url!r} is no address ({error})") from error
    if parts.scheme not in ("http", "https") or not host:
        raise NotConnected(f"{url!r} is no address of a server")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = b"POST " + path.encode() + b" HTTP/1.1\r\nhost: " + name + b"\r\n"
    return Target(host, port, secure, head)


class HttpClient:
    """Connections to engines, kept for the next request. It belongs to one event loop.

    `connect_s` bounds the making of a connection, `keep_s` how long an idle one is used again.
    """

    def __init__(self, *, connect_s: float = 5.0, keep_s: float = 30.0) -> None:
        self._connect_s, self._keep_s = connect_s, keep_s
        self._idle: dict[Target, list[Connection]] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    async def post(self, url: str, data: bytes, headers: Mapping[str, str], until: float) -> Reply:
        """Send a JSON body; return the answer once its head is there, by the loop's time `until`.

        Raises NotConnected, ConnectTimeout, HungUp, Garbled or TimeoutError.
        """
        target = target_of(url)
        request = _request(target, data, headers)
        connection = self._take(target) or await self._connect(target, until)
        reply = connection.ask(request)
        try:
            await reply.head(until)
        except BaseException:
            reply.close()
            raise
        return reply

    def _keep(self, target: Target, connection: Connection) -> None:
        """Keep an idle connection; one that was idle for too long is closed instead."""
        if self._closed:
            connection.end()
            return
        connection.idle_since = now = connection.loop.time()
        idle = self._idle.setdefault(target, [])
        if idle and now - idle[0].idle_since > self._keep_s:
            idle.pop(0).end()
        idle.append(connection)

    def _forget(self, target: Target, connection: Connection) -> None:
        """Drop a connection that has ended."""
        idle = self._idle.get(target)
        if idle and connection in idle:
            idle.remove(connection)

    async def close(self) -> None:
        """Close the idle connections; those in use close when they are given back."""
        self._closed = True
        for idle in self._idle.values():
            for connection in idle:
                connection.end()
        self._idle.clear()

    def _take(self, target: Target) -> Connection | None:
        """Return the connection that was used last, or None."""
        idle = self._idle.get(target)
        while idle:
            connection = idle.pop()
            if not connection.usable:
                continue
            if connection.loop.time() - connection.idle_since < self._keep_s:
                return connection
            connection.end()
        return None

    async def _connect(self, target: Target, until: float) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(until, loop.time() + self._connect_s)):
                transport, connection = await loop.create_connection(
                    lambda: Connection(
                        loop, partial(self._keep, target), partial(self._forget, target)
                    ),
                    target.host,
                    target.port,
                    ssl=self._context() if target.secure else None,
                )
        except TimeoutError as error:
            if loop.time() >= until - EARLY_S:
                raise
            raise ConnectTimeout(f"{target.host}:{target.port} did not answer") from error
        except OSError as error:
            raise NotConnected(f"{target.host}:{target.port}: {error}") from error
        _limit_what_waits(transport)
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def _limit_what_waits(transport: asyncio.BaseTransport) -> None:
    """Bound what the system takes from an engine whose client reads slowly."""
    found = transport.get_extra_info("socket")
    if found is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SYSTEM)


def _request(target: Target, data: bytes, headers: Mapping[str, str]) -> bytes:
    """Return a request as it is sent."""
    more = ""
    for name, value in headers.items():
        if not f"{name}{value}".isprintable():
            raise Garbled(f"the header {name!r} can't be sent")
        more += f"{name}: {value}\r\n"
    return b"%scontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s" % (
        target.head,
        more.encode("latin-1", "replace"),
        len(data),
        data,
    )
