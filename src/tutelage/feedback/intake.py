"""POST /v1/feedback: acknowledged only when it is durable, late and repeated deliveries welcome.

A delivery with the same content is the same signal. With an `Idempotency-Key` header it is known
as a retry, and changes nothing even if other feedback came in between. A key that is limited to
some deployments gets the same answer for an id of another one, and nothing is kept of that. It
keeps what was said; what it means for training is decided in segment.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tutelage.core.errors import DataError, nearest
from tutelage.feedback.cleaning import clean
from tutelage.feedback.deliveries import digest_of, retry_key
from tutelage.feedback.signals import Declared, Feedback, declare, read_feedback
from tutelage.serving.access.keys import Caller, caller_of
from tutelage.serving.records.request_log import KeyReused, LogFull, LogSlow, keep
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.body import read_json
from tutelage.serving.wire.wire import HttpError, json_response

_LONGEST_KEY = 255  # characters of an idempotency key


def routes(state: GatewayState) -> list[BaseRoute]:
    """Return the feedback endpoint over a gateway's log."""
    output = state.project.output.format()
    declared = declare(state.project.feedback)

    async def feedback(request: Request) -> Response:
        try:
            caller = caller_of(request)
            sent = await read_json(request)
            if state.redactor is not keep:  # long texts take long, and others do not wait
                body = await asyncio.to_thread(clean, sent, state.redactor, state.split_key)
            else:
                body = clean(sent, keep, state.split_key)
            found = read_feedback(body, output, caller.name, declared)
            await _keep(state, found, caller, _retry_key(request, caller.name))
            _count(state, found)
        except DataError as error:
            return HttpError(400, error.sentence(), code="invalid_feedback").response()
        except HttpError as error:
            return error.response()
        return json_response(_acknowledgement(found, declared))

    return [Route("/v1/feedback", feedback, methods=["POST"])]


def _retry_key(request: Request, sender: str | None) -> str | None:
    """Return the hash of the sender and its Idempotency-Key, or None; raise HttpError 400."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return None
    if not 0 < len(given) <= _LONGEST_KEY:
        message = f"The Idempotency-Key header must have 1 to {_LONGEST_KEY} characters."
        raise HttpError(400, message, code="invalid_idempotency_key")
    return retry_key(sender, given)


async def _keep(state: GatewayState, found: Feedback, caller: Caller, key: str | None) -> None:
    try:
        await state.log.signals(found.rows, key, digest_of(found), caller.deployments)
    except KeyReused:
        raise HttpError(
            422, "This Idempotency-Key came before with other content; it was not kept.",
            code="idempotency_key_reused",
        ) from None  # fmt: skip
    except LogFull:
        raise HttpError(
            503, "Too much feedback at once; it was not kept.", code="log_full", retry_after=2
        ) from None
    except LogSlow:
        raise HttpError(
            503, "The store is too slow to confirm the feedback; send it again.",
            code="store_slow", retry_after=5,
        ) from None  # fmt: skip
    except (SQLAlchemyError, OSError) as error:
        raise HttpError(
            503, "The store could not keep the feedback; send it again.", code="store_error",
            retry_after=5,
        ) from error  # fmt: skip


def _count(state: GatewayState, found: Feedback) -> None:
    for row in found.rows:
        kind = "undeclared" if row["kind"] in found.undeclared else row["kind"]
        state.telemetry.feedback.labels(kind).inc()


def _acknowledgement(found: Feedback, declared: Mapping[str, Declared]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "object": "feedback",
        "record_id": found.record,
        "kept": [row["kind"] for row in found.rows],
    }
    if found.undeclared:
        near = {name: nearest(name, list(declared)) for name in found.undeclared}
        body["undeclared"] = near
    return body
