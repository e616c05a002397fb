"""HTTP/1.1 on a socket, for clients that can't be trusted: bounded heads, bounded waiting.

uvicorn's protocol bounds neither a request's head nor the time a client takes. This one does, and
answers in OpenAI's error shape. Bodies are read, and bounded, by body.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.events import TimerHandle
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

_MOST_HEAD = 32_768  # bytes of a request's address and headers
_MOST_HEADERS = 100
_HEAD_S = 10.0  # from a request's first byte to the end of its head
_BODY_S = 20.0  # wait for the next bytes of a body
_WHOLE_S = 120.0  # wait for a whole body
_STALL_S = 30.0  # a client reads nothing, or sends a body nobody waits for
_LINGER_S = 1.0
_BUFFER = 16_384  # bytes that wait for a client to read, besides the system's buffers
_SPARE_FILES = 128  # descriptors that are not connections

WATCH = "tutelage.watch"  # in a scope: takes what to call when the client leaves, or None


class _Refused(Exception):
    """The head of a request is not one that is read."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits. One is made for each connection."""

    most_connections = 1000
    head_s = _HEAD_S
    body_s = _BODY_S
    stall_s = _STALL_S

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._in_head = True
        self._head = 0  # bytes of the head so far
        self._refused: _Refused | None = None
        self._ended = False
        self._gone: Callable[[], None] | None = None
        self._head_timer: TimerHandle | None = None
        self._body_timer: TimerHandle | None = None
        self._body_until = 0.0  # the loop's time
        self._stall_timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, if there are not too many."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.transport.set_write_buffer_limits(_BUFFER)
        if len(self.connections) > self.most_connections:
            self._refuse(_Refused(503, "There are too many connections; try again later."))
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and tell who answers."""
        self._stop_timers()
        super().connection_lost(exc)
        self._leave()

    def data_received(self, data: bytes) -> None:
        """Take bytes of requests; one that is not HTTP, or too much of it, ends the connection."""
        if self._ended or self.transport.is_closing():
            return  # what a client still sends after its refusal is dropped
        self._unset_keepalive_if_required()
        was_in_head = self._in_head
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # an offer to change protocols, which a server may pass over
        except httptools.HttpParserError:
            self._refuse(self._refused or _Refused(400, "This is not a valid HTTP request."))
            return
        if self._in_head:
            self._head += len(data) if was_in_head else 1  # the rest is the request's before
            if self._head > _MOST_HEAD:
                self._refuse(_Refused(431, f"The head is larger than {_MOST_HEAD:,} bytes."))
            elif self._head_timer is None:
                self._await_head()
        elif self.cycle.more_body and not self.cycle.response_complete:
            self._await_body()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope[WATCH] = self._watch  # type: ignore[literal-required]
        self._in_head, self._head = True, 0
        self._read = self._count = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers after a body are passed over."""
        if not self._in_head:
            return
        self._count += 1
        self._grow(len(name) + len(value) + 4)
        if self._count > _MOST_HEADERS:
            self._reject(431, f"There are more than {_MOST_HEADERS} headers.")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request; not for ever for the rest of a body that nobody reads."""
        if self.cycle is not None and self.cycle.more_body and self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self.stall_s, self.transport.abort)
        super().on_response_complete()

    def on_message_complete(self) -> None:
        """End the request's body."""
        self._stop_body()
        if not self.flow.write_paused:
            self._stop_stall()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Hear that the client does not read: after a while the connection is given up."""
        super().pause_writing()
        self._stop_stall()
        self._stall_timer = self.loop.call_later(self.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Hear that the client reads again."""
        self._stop_stall()
        super().resume_writing()

    def _watch(self, gone: Callable[[], None] | None) -> None:
        self._gone = gone
        if gone is not None and self.transport.is_closing():
            self.loop.call_soon(self._leave)

    def _leave(self) -> None:
        if self._gone is not None:
            self._gone()

    def _grow(self, size: int) -> None:
        self._read += size
        if self._read > _MOST_HEAD:
            self._reject(431, f"The head is larger than {_MOST_HEAD:,} bytes.")

    def _reject(self, status: int, message: str) -> None:
        """End the parsing: the parser turns what its callbacks raise into an error of its own."""
        self._refused = _Refused(status, message)
        raise self._refused

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_s, self._head_late)

    def _await_body(self) -> None:
        """Wait for more of a body, of which the first part came with the head."""
        now = self.loop.time()
        if self._body_timer is None:
            self._body_until = now + _WHOLE_S
        else:
            self._body_timer.cancel()
        wait = min(self.body_s, self._body_until - now)
        self._body_timer = self.loop.call_later(wait, self._body_late)

    def _body_late(self) -> None:
        """Give up a body that does not come; the request hears that its client has left."""
        cycle = self.cycle
        if not (cycle.response_started or cycle.disconnected):
            cycle.disconnected = True
            cycle.message_event.set()
            self._end(_Refused(408, "The body did not come in time."))

    def _head_late(self) -> None:
        if self._head == 0:
            self.transport.close()  # it never said anything: nobody waits for an answer
        else:
            self._refuse(_Refused(408, "The head did not come in time."))

    def _refuse(self, refused: _Refused) -> None:
        """Answer and end the connection; after an answer has begun, only end it.

        What the client still sends is read for a moment: a socket that is closed over unread
        bytes takes the answer with it.
        """
        self._stop_timers()
        if self._ended or self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._ended = True
            self.transport.close()
            return
        self._end(refused)

    def _end(self, refused: _Refused) -> None:
        self._ended = True
        self.transport.write(_refusal(refused))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._stall_timer = self.loop.call_later(_LINGER_S, self.transport.close)

    def _stop_timers(self) -> None:
        self._stop_stall()
        self._stop_body()
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_body(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _stop_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


def _refusal(refused: _Refused) -> bytes:
    kind = "server_error" if refused.status >= 500 else "invalid_request_error"
    error = {"message": refused.message, "type": kind, "param": None, "code": "bad_request"}
    body = json.dumps({"error": error}).encode()
    head = [
        STATUS_LINE[refused.status],
        b"content-type: application/json\r\n",
        b"content-length: %d\r\n" % len(body),
        b"retry-after: 1\r\n" if refused.status == 503 else b"",
        b"connection: close\r\n\r\n",
    ]
    return b"".join([*head, body])


def protocol() -> type[GuardedProtocol]:
    """Return the protocol with as many connections as this process may have open files for.

    The limit of open files is raised as far as the system lets us. A request may need two: the
    client's and the engine's.
    """
    files = _open_files()
    most = max(64, (files - _SPARE_FILES) // 2)

    class Limited(GuardedProtocol):
        most_connections = most

    return Limited


def _open_files() -> int:
    if sys.platform == "win32":
        return 2048
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 65_536 if soft == resource.RLIM_INFINITY else int(soft)
