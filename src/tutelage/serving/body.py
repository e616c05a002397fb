"""Reading what a client sends: one JSON object, of bounded size.

What the object means is wire.py's business.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from tutelage.serving.wire import MAX_BODY, HttpError, parse_json


async def read_json(request: Request) -> dict[str, Any]:
    """Return the body's JSON object; raise HttpError 413 or 400.

    Of a body that is too large some is read and dropped, so that the client hears why.
    """
    raw, read = b"", 0
    async for chunk in request.stream():
        read += len(chunk)
        if read <= MAX_BODY:
            raw += chunk
        elif read > 4 * MAX_BODY:
            break
    if read > MAX_BODY:
        limit = f"The body is larger than {MAX_BODY // 2**20} MiB."
        raise HttpError(413, limit, code="too_large")
    return parse_json(raw)
