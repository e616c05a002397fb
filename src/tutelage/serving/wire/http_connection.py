"""One connection to an engine: a request at a time, its answer read in small portions.

The parser is httptools (llhttp), as on the side of the clients. Which connection a request takes
is http_client.py's business, and what an answer means upstream_answer.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools

EARLY_S = 0.002  # an event loop's clock may be so much behind
_READ = 16_384  # bytes read from a socket at once
_AHEAD = 16_384  # bytes of a body that may wait before the socket is left alone
_MOST_BARE = 65_536  # bytes without any of a body: heads, trailers


class HungUp(ConnectionError):
    """The connection ended before an answer began."""


class Garbled(Exception):
    """What came is no HTTP answer, or only a part of one."""


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


class _Parsing:
    """What the parser finds in the bytes of one answer after another."""

    def __init__(self) -> None:
        self.reply: Reply | None = None
        self.bare = 0  # bytes since the last one of a body
        self.chunked = self.keep = self._interim = False
        self._parser: Any = httptools.HttpResponseParser(self)

    def begin(self, reply: Reply) -> None:
        """Expect another answer."""
        self.reply, self.bare, self.chunked, self.keep = reply, 0, False, False

    def feed(self, data: memoryview) -> None:
        """Take more bytes; raise Garbled for what is no answer."""
        self.bare += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.keep = False
            raise Garbled(str(error) or "it changes the protocol") from error
        if self.bare > _MOST_BARE:
            raise Garbled("its head is too large")

    def close(self) -> Reply | None:
        """Let go of the parser; return the answer that was under way."""
        reply, self.reply, self._parser = self.reply, None, None
        return reply

    def on_message_begin(self) -> None:
        """Begin an answer; a second one, which nobody asked for, is an error."""
        if self.reply is None or self.reply.ended:
            raise Garbled("an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Learn how the end of the body will be told."""
        name = name.lower()
        if name == b"content-length" and self.reply is not None:
            self.reply.length = int(value)  # the parser has checked it
        elif name == b"transfer-encoding":
            self.chunked = True

    def on_headers_complete(self) -> None:
        """Tell the status, unless it is one of those before the real one."""
        status = self._parser.get_status_code()
        self._interim = status < 200
        if self.reply is not None and not self._interim:
            self.reply.status = status
            self.reply.wake()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self.bare = 0
        if self.reply is not None:
            self.reply.take(body)

    def on_message_complete(self) -> None:
        """End the answer."""
        if self._interim or self.reply is None:
            return
        self.keep = self._parser.should_keep_alive()
        self.reply.ended = True
        self.reply.wake()


class Connection(asyncio.BufferedProtocol):
    """A connection to an engine: one request at a time, and the socket read in small portions."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        keep: Callable[[Connection], None],
        forget: Callable[[Connection], None],
    ) -> None:
        self.loop = loop
        self.idle_since = 0.0  # the loop's time
        self._keep, self._forget = keep, forget
        self._view = memoryview(bytearray(_READ))
        self._parsing = _Parsing()
        self._transport: Any = None
        self._lost = self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = self._until = 0.0

    @property
    def usable(self) -> bool:
        """Whether a request may be sent."""
        return not (self._lost or self._transport.is_closing())

    def ask(self, data: bytes) -> Reply:
        """Send a request; return its answer, of which nothing is there yet."""
        reply = Reply(self)
        self._parsing.begin(reply)
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
        if reply is not self._parsing.reply:
            return
        self._parsing.reply = None
        if reply.ended and self._parsing.keep and self.usable:
            self._keep(self)
        else:
            self.end()

    def _ring(self) -> None:
        self._timer = None
        reply = self._parsing.reply
        if reply is None or not reply.waiting:
            return
        if self._until - self.loop.time() > EARLY_S:
            self.alarm(self._until)
        else:
            reply.fail(TimeoutError())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to: what an engine sends at once is bounded."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        reply = self._parsing.reply
        if reply is None:  # nobody asked
            self.end()
            return
        try:
            self._parsing.feed(self._view[:nbytes])
        except Garbled as error:
            if not reply.ended:
                reply.fail(error)
            self.end()
            return
        if reply.size > _AHEAD and not self._paused and not reply.ended:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the reply, for which this may be the end it waits for."""
        self._lost = True
        self._forget(self)
        if self._timer is not None:
            self._timer.cancel()
        reply = self._parsing.close()
        if reply is None or reply.ended:
            return
        if not reply.status:
            reply.fail(HungUp(str(exc or "the connection ended without an answer")))
        elif exc is None and reply.length is None and not self._parsing.chunked:
            reply.ended = True
            reply.wake()
        else:
            reply.fail(Garbled("the connection ended early"))
