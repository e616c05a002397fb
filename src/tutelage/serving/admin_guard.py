"""Who may use a path under /admin, and how a user's error is told over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from tutelage.core.errors import Conflict, DataError, NotFound, TutelageError
from tutelage.serving.access.keys import Caller, KeyRole, caller_of
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.wire import HttpError, json_response
from tutelage.store.problems import problem_of

_STORE_S = 5  # before a store that refused is asked again
Handler = Callable[[GatewayState, Request], Awaitable[Any]]


def guarded(
    role: KeyRole, handler: Handler, *, scoped: bool = False
) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint that answers with what `handler` gives, to callers of the role.

    A key that is limited to some deployments gets in where the handler looks at that (`scoped`).
    """

    async def endpoint(request: Request) -> Response:
        state: GatewayState = request.app.state.gateway
        try:
            require_role(caller_of(request), role, scoped=scoped)
            return json_response(await handler(state, request))
        except HttpError as error:
            return error.response()
        except TutelageError as error:
            return from_user_error(error).response()
        except SQLAlchemyError as error:
            if (problem := problem_of(error)) is None:
                raise
            return HttpError(
                503, problem.sentence(), code="store_error", retry_after=_STORE_S
            ).response()

    return endpoint


def require_role(caller: Caller, role: KeyRole, *, scoped: bool = False) -> None:
    """Raise HttpError 403 for a caller below the role, or limited to some deployments."""
    if not caller.may(role):
        raise HttpError(403, f"This needs a key with the role '{role}'.", code="forbidden")
    if caller.deployments is not None and not scoped:
        raise HttpError(
            403,
            "This tells of every deployment, and the key is limited to some; use another.",
            code="forbidden",
        )


def author_of(request: Request) -> str:
    """Return who is told to have done what a request asks for."""
    return caller_of(request).name or "the local user"


def from_user_error(error: TutelageError) -> HttpError:
    """Return the HTTP form of an error that a person can act on."""
    if isinstance(error, Conflict):
        return HttpError(409, error.sentence(), code="conflict")
    if isinstance(error, NotFound):
        return HttpError(404, error.sentence(), code="not_found")
    code = "invalid_value" if isinstance(error, DataError) else type(error).__name__.lower()
    return HttpError(400, error.sentence(), code=code)
