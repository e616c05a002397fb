"""Reading what a client sends: one JSON object of bounded size, in bounded memory.

What the object means is wire_request.py's business, and how long it may take to come is
http_protocol.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import ClientDisconnect, Request

from tutelage.core.errors import did_you_mean
from tutelage.serving.wire.wire import HttpError
from tutelage.serving.wire.wire_request import parse_json

MAX_BODY = 4 * 2**20  # bytes
_SMALL = 65_536  # bytes: bodies up to this are not counted
_ROOM = 128 * 2**20  # bytes of large bodies held at once


class Room:
    """How many bytes of large bodies may be held at once, by all requests together."""

    def __init__(self, size: int = _ROOM) -> None:
        self.size = size
        self.used = 0

    def share(self) -> Share:
        """Return one request's part, which is empty yet."""
        return Share(self)


class Share:
    """What one request holds of a `Room`, until `free`."""

    __slots__ = ("_room", "_taken")

    def __init__(self, room: Room) -> None:
        self._room, self._taken = room, 0

    def grow(self, size: int) -> None:
        """Hold `size` bytes in all; raise HttpError 503 if there is no room."""
        more = size - self._taken
        if size <= _SMALL or more <= 0:
            return
        if self._room.used + more > self._room.size:
            raise HttpError(
                503, "Too many large requests are under way.", code="busy", retry_after=1
            )
        self._room.used += more
        self._taken = size

    def free(self) -> None:
        """Give everything back. May be called again."""
        self._room.used -= self._taken
        self._taken = 0


async def read_json(request: Request, share: Share | None = None) -> dict[str, Any]:
    """Return the body's JSON object; raise HttpError 400, 413 or 503.

    The room that a large body takes is given back at once, unless the caller brings a `share`.
    """
    own = share or request.app.state.gateway.room.share()
    try:
        return parse_json(await _read(request, own))
    except ClientDisconnect:
        raise HttpError(400, "The body ended early.", code="invalid_json") from None
    finally:
        if share is None:
            own.free()


def require_fields(body: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Raise HttpError 400 for the first field of `what` that is not known."""
    if unknown := next((name for name in body if name not in known), None):
        hint = did_you_mean(unknown, known)
        text = f"{what} has no {unknown!r}. {hint}Known: {', '.join(known)}."
        raise HttpError(400, text, code="invalid_value", param=unknown)


async def _read(request: Request, share: Share) -> bytes:
    """Return the body. Of one that is too large some is read and dropped, so the client hears."""
    raw, read = bytearray(), 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        read += len(chunk)
        if read > 4 * MAX_BODY:
            break
        if read <= MAX_BODY and chunk:
            share.grow(read)
            raw += chunk
    if read > MAX_BODY:
        limit = f"The body is larger than {MAX_BODY // 2**20} MiB."
        raise HttpError(413, limit, code="too_large", headers={"connection": "close"})
    return bytes(raw)
