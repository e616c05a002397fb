"""Who is calling: API keys by SHA-256, roles, and the local user of a loopback gateway.

Keys are read from the store in the background; a request only touches memory. How keys are made,
changed and revoked stands in key_store.py.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from tutelage.serving.access.throttle import Throttle
from tutelage.serving.wire.wire import HttpError

KeyRole = Literal["client", "operator", "admin"]
ROLES: tuple[str, ...] = get_args(KeyRole)
UNITS = ("requests", "tokens", "cost")  # of budgets
_RANK: dict[str, int] = {role: rank for rank, role in enumerate(ROLES)}
_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1", "testserver"))
_GUESSES_A_MINUTE = 20  # wrong keys from one address before it has to wait


@dataclass(frozen=True)
class Allowance:
    """One budget that belongs to a key: at most `limit` of `unit` per period."""

    unit: str  # of UNITS
    per: str  # minute, hour, day, month, total
    limit: float


@dataclass(frozen=True)
class Caller:
    """Who sent a request: the key's name (None: the local user), its role and its limits."""

    name: str | None
    role: KeyRole
    expires: float | None = None  # seconds since the epoch; None: never
    deployments: frozenset[str] | None = None  # what it may call; None: everything
    requests_per_minute: int | None = None  # None: as the settings have it
    tokens_per_minute: int | None = None
    budgets: tuple[Allowance, ...] = ()

    def may(self, role: KeyRole) -> bool:
        """Return whether the caller's role is `role` or above."""
        return _RANK[self.role] >= _RANK[role]

    def sees(self, deployment: str) -> bool:
        """Return whether the caller may call `deployment` and know of it."""
        return self.deployments is None or deployment in self.deployments

    def visible(self, deployments: Iterable[str]) -> list[str]:
        """Return those of `deployments` that the caller may know of."""
        return [name for name in deployments if self.sees(name)]


LOCAL = Caller(None, "admin")


def digest(secret: str) -> str:
    """Return the SHA-256 of a key, 64 hex digits: all that is ever stored."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class KeyRing:
    """The active keys in memory. `required` is False only for a gateway bound to loopback."""

    def __init__(self, *, required: bool) -> None:
        self.required = required
        self.version = 0  # rises when the keys are not those of before
        self._callers: dict[str, Caller] = {}
        self._names: dict[str, Caller] = {}
        self._guesses = Throttle(_GUESSES_A_MINUTE)

    def __len__(self) -> int:
        return len(self._callers)

    def replace(self, callers: Mapping[str, Caller]) -> None:
        """Take a new set of keys, by digest."""
        if callers == self._callers:
            return
        self._callers = dict(callers)
        self._names = {c.name: c for c in callers.values() if c.name is not None}
        self.version += 1

    def named(self, name: str | None) -> Caller:
        """Return the caller behind a key's name; the local user for None and unknown names."""
        return self._names.get(name, LOCAL) if name is not None else LOCAL

    def callers(self) -> list[Caller]:
        """Return every key that may call, once a name."""
        return list(self._names.values())

    def identify(self, headers: Mapping[str, str], address: str | None = None) -> Caller:
        """Return the caller of a request; raise HttpError 401 for a missing or unknown key.

        On loopback a request without a key (or with a placeholder that is no key of ours, as SDKs
        insist on one) is the local user, unless a web page of another origin sent it. After too
        many wrong keys from one `address` the answer is 429; right keys are never kept waiting.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() == "bearer" and token:
            # Looked up by its SHA-256: how long that takes says nothing of any secret.
            found = self._callers.get(digest(token))
            if found is not None:
                return _unexpired(found)
            if self.required or token.startswith("tut_"):
                self._wrong_key(address)
        if self.required:
            raise HttpError(
                401, "An API key is required: send 'Authorization: Bearer KEY'.", code="no_api_key"
            )
        _refuse_foreign_pages(headers)
        return LOCAL

    def _wrong_key(self, address: str | None) -> None:
        wait = self._guesses.take(address or "")
        if wait > 0:
            raise HttpError(
                429,
                "Too many wrong API keys came from this address.",
                code="too_many_wrong_keys",
                retry_after=wait,
            )
        raise HttpError(401, "The API key is not known.", code="invalid_api_key")


def caller_of(request: HTTPConnection) -> Caller:
    """Return who sent a request to the gateway; raise HttpError 401, 403 or 429."""
    keys: KeyRing = request.app.state.gateway.keys
    client = request.scope.get("client")
    return keys.identify(request.headers, client[0] if client else None)


def _unexpired(caller: Caller) -> Caller:
    if caller.expires is not None and time.time() >= caller.expires:
        raise HttpError(401, "The API key has expired.", code="expired_api_key")
    return caller


def _refuse_foreign_pages(headers: Mapping[str, str]) -> None:
    """Stop web pages that reach a local gateway through a browser (DNS rebinding, CSRF)."""
    origins = [f"//{headers.get('host', 'localhost')}", headers.get("origin") or "//localhost"]
    for origin in origins:
        try:
            name = urlsplit(origin).hostname
        except ValueError:
            name = None
        if name not in _LOCAL_NAMES:
            raise HttpError(
                403,
                "A web page of another site can't use this gateway without an API key.",
                code="foreign_origin",
            )
