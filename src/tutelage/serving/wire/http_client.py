"""A small HTTP/1.1 client for asking engines: connections are kept, memory and waiting bounded.

It posts bytes and hands on a status and a body as it comes. It follows no redirects, unpacks
nothing, keeps no cookies and uses no proxy. What an answer means is upstream_answer.py's business.
The parser is httptools (llhttp), as on the side of the clients.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httptools

_READ = 16_384  # bytes read from a socket at once
_AHEAD = 16_384  # bytes of a body that may wait before the socket is left alone
_SYSTEM = 65_536  # bytes the system may hold of what an engine sends
_MOST_BARE = 65_536  # bytes without any of a body: heads, trailers
_EARLY_S = 0.002  # an event loop's clock may be so much behind


class NotConnected(ConnectionError):
    """There is no connection: nothing was sent."""


class ConnectTimeout(ConnectionError):
    """The connection was not made in time."""


class HungUp(ConnectionError):
    """The connection ended before an answer began."""


class Garbled(Exception):
    """What came is no HTTP answer, or only a part of one."""


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


class Reply:
    """An answer on its way. `status` is 0 until its head is there, `length` None if not told."""

    __slots__ = ("_connection", "_error", "_parts", "_waiter", "ended", "length", "size", "status")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._parts: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.size = 0  # bytes of the body that wait to be read
        self.status = 0
        self.length: int | None = None
        self.ended = False

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for the engine."""
        return self._waiter is not None and not self._waiter.done()

    async def head(self, until: float) -> None:
        """Return when the status is known. `until` is of the loop's time.

        Raises HungUp, Garbled or TimeoutError.
        """
        while not self.status:
            await self._wait(until)

    async def read(self, until: float) -> bytes:
        """Return what there is of the body, or waits for more; empty at its end.

        Raises Garbled for a body that ends early, or TimeoutError.
        """
        while not (self.size or self.ended):
            await self._wait(until)
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.size = 0
        self._connection.more()
        return data

    def close(self) -> None:
        """End the connection: the engine sees it and stops its work."""
        self._connection.end()

    def release(self) -> None:
        """Give the connection back for another request, if the answer has come to its end."""
        self._connection.give_back(self)

    def take(self, body: bytes) -> None:
        """Take a part of the body from the connection."""
        self._parts.append(body)
        self.size += len(body)
        self.wake()

    def fail(self, error: Exception) -> None:
        """Let whoever reads on hear of an error, after what came before it."""
        if self._error is None:
            self._error = error
        self.wake()

    def wake(self) -> None:
        """Let whoever waits look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self, until: float) -> None:
        if self._error is not None:
            raise self._error
        connection = self._connection
        if until <= connection.loop.time():
            raise TimeoutError
        self._waiter = connection.loop.create_future()
        connection.alarm(until)
        try:
            await self._waiter
        finally:
            self._waiter = None


class Connection(asyncio.BufferedProtocol):
    """A connection to an engine: one request at a time, and the socket read in small portions."""

    def __init__(self, client: HttpClient, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.idle_since = 0.0  # the loop's time
        self._client, self._target = client, target
        self._view = memoryview(bytearray(_READ))
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._reply: Reply | None = None
        self._bare = 0  # bytes since the last one of a body
        self._interim = self._chunked = self._keep = self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = self._until = 0.0

    @property
    def usable(self) -> bool:
        """Whether a request may be sent."""
        return self._parser is not None and not self._transport.is_closing()

    def ask(self, data: bytes) -> Reply:
        """Send a request; return its answer, of which nothing is there yet."""
        self._reply = reply = Reply(self)
        self._bare, self._chunked, self._keep = 0, False, False
        self._transport.write(data)
        return reply

    def more(self) -> None:
        """Read on, after what was ahead has been taken."""
        if self._paused:
            self._paused = False
            if self.usable:
                self._transport.resume_reading()

    def alarm(self, until: float) -> None:
        """Tell the reply that waits when its time is up. One timer serves many waits."""
        self._until = until
        if self._timer is not None:
            if self._rings_at <= until:
                return
            self._timer.cancel()
        self._rings_at = until
        self._timer = self.loop.call_at(until, self._ring)

    def end(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def give_back(self, reply: Reply) -> None:
        """Take the next request, if the last one's answer has ended as it should."""
        if reply is not self._reply:
            return
        self._reply = None
        if reply.ended and self._keep and self.usable:
            self._client.keep(self._target, self)
        else:
            self.end()

    def _ring(self) -> None:
        self._timer = None
        reply = self._reply
        if reply is None or not reply.waiting:
            return
        if self._until - self.loop.time() > _EARLY_S:
            self.alarm(self._until)
        else:
            reply.fail(TimeoutError())

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to: what an engine sends at once is bounded."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        reply = self._reply
        if reply is None:  # nobody asked
            self.end()
            return
        self._bare += nbytes
        try:
            self._parser.feed_data(self._view[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keep = False
            if not reply.ended:
                reply.fail(Garbled(str(error) or "it changes the protocol"))
            self.end()
            return
        if self._bare > _MOST_BARE:
            reply.fail(Garbled("its head is too large"))
            self.end()
        elif reply.size > _AHEAD and not self._paused and not reply.ended:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """Hear that no more comes: the connection ends."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the reply, for which this may be the end it waits for."""
        self._parser = None
        self._client.forget(self._target, self)
        if self._timer is not None:
            self._timer.cancel()
        reply, self._reply = self._reply, None
        if reply is None or reply.ended:
            return
        if not reply.status:
            reply.fail(HungUp(str(exc or "the connection ended without an answer")))
        elif exc is None and reply.length is None and not self._chunked:
            reply.ended = True
            reply.wake()
        else:
            reply.fail(Garbled("the connection ended early"))

    # what the parser calls

    def on_message_begin(self) -> None:
        """Begin an answer; a second one, which nobody asked for, is an error."""
        if self._reply is None or self._reply.ended:
            raise Garbled("an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Learn how the end of the body will be told."""
        name = name.lower()
        if name == b"content-length" and self._reply is not None:
            self._reply.length = int(value)  # the parser has checked it
        elif name == b"transfer-encoding":
            self._chunked = True

    def on_headers_complete(self) -> None:
        """Tell the status, unless it is one of those before the real one."""
        status = self._parser.get_status_code()
        self._interim = status < 200
        if self._reply is not None and not self._interim:
            self._reply.status = status
            self._reply.wake()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._bare = 0
        if self._reply is not None:
            self._reply.take(body)

    def on_message_complete(self) -> None:
        """End the answer."""
        if self._interim or self._reply is None:
            return
        self._keep = self._parser.should_keep_alive()
        self._reply.ended = True
        self._reply.wake()


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

    def keep(self, target: Target, connection: Connection) -> None:
        """Keep an idle connection; one that was idle for too long is closed instead."""
        if self._closed:
            connection.end()
            return
        connection.idle_since = now = connection.loop.time()
        idle = self._idle.setdefault(target, [])
        if idle and now - idle[0].idle_since > self._keep_s:
            idle.pop(0).end()
        idle.append(connection)

    def forget(self, target: Target, connection: Connection) -> None:
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
                    lambda: Connection(self, target, loop),
                    target.host,
                    target.port,
                    ssl=self._context() if target.secure else None,
                )
        except TimeoutError as error:
            if loop.time() >= until - _EARLY_S:
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
