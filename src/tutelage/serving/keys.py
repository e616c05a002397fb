"""Who is calling: API keys by SHA-256, roles, and the local user of a loopback gateway.

Keys are read from the store in the background; a request only touches memory. The secret is
shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlsplit

from sqlalchemy import select

from tutelage.core.errors import Conflict, DataError
from tutelage.serving.wire import HttpError
from tutelage.store.base import Store
from tutelage.store.releases import KeyRow

KeyRole = Literal["client", "operator", "admin"]
_RANK: dict[str, int] = {role: rank for rank, role in enumerate(get_args(KeyRole))}
_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1", "testserver"))


@dataclass(frozen=True)
class Caller:
    """Who sent a request: the key's name (None: the local user) and role."""

    name: str | None
    role: KeyRole

    def may(self, role: KeyRole) -> bool:
        """Return whether the caller's role is `role` or above."""
        return _RANK[self.role] >= _RANK[role]


LOCAL = Caller(None, "admin")


def digest(secret: str) -> str:
    """Return the SHA-256 of a key, 64 hex digits: all that is ever stored."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class KeyRing:
    """The active keys in memory. `required` is False only for a gateway bound to loopback."""

    def __init__(self, *, required: bool) -> None:
        self.required = required
        self._callers: dict[str, Caller] = {}

    def __len__(self) -> int:
        return len(self._callers)

    def replace(self, callers: Mapping[str, Caller]) -> None:
        """Take a new set of keys, by digest."""
        self._callers = dict(callers)

    def identify(self, headers: Mapping[str, str]) -> Caller:
        """Return the caller of a request; raise HttpError 401 for a missing or unknown key.

        On loopback a request without a key (or with a placeholder that is no key of ours, as SDKs
        insist on one) is the local user, unless a web page of another origin sent it.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            found = self._find(digest(token.strip()))
            if found is not None:
                return found
            if self.required or token.strip().startswith("tut_"):
                raise HttpError(401, "The API key is not known.", code="invalid_api_key")
        if self.required:
            raise HttpError(
                401, "An API key is required: send 'Authorization: Bearer KEY'.", code="no_api_key"
            )
        _refuse_foreign_pages(headers)
        return LOCAL

    def _find(self, wanted: str) -> Caller | None:
        found = None
        for known, caller in self._callers.items():  # every key is compared, in constant time
            if hmac.compare_digest(known, wanted):
                found = caller
        return found


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


def load_keys(store: Store) -> dict[str, Caller]:
    """Return the active keys by digest."""
    with store.session() as session:
        rows = session.scalars(select(KeyRow).where(KeyRow.active))
        return {row.hash: Caller(row.name, row.role) for row in rows if row.role in _RANK}  # type: ignore[arg-type]


def create_key(store: Store, name: str, role: str = "client") -> str:
    """Return a new secret for `name`. It is not stored: only its SHA-256 is.

    Raises DataError for an unknown role or an empty name, Conflict if the name is taken.
    """
    if role not in _RANK:
        raise DataError(f"{role!r} is not a role", fix=f"Choose one of {', '.join(_RANK)}")
    if not name or len(name) > 80:
        raise DataError("a key needs a name of 1 to 80 characters", fix="Name who will use it")
    secret = f"tut_{secrets.token_urlsafe(32)}"
    with store.begin() as session:
        if session.scalars(select(KeyRow).where(KeyRow.name == name)).first():
            raise Conflict(
                f"a key named {name!r} exists", fix="Choose another name or revoke that one"
            )
        session.add(KeyRow(hash=digest(secret), name=name, role=role))
    return secret


def revoke_key(store: Store, name: str) -> None:
    """Make the key unusable from the next refresh on. Raises DataError if there is none."""
    with store.begin() as session:
        row = session.scalars(select(KeyRow).where(KeyRow.name == name)).first()
        if row is None:
            raise DataError(f"there is no key named {name!r}", fix="GET /admin/keys lists them")
        row.active = False


def list_keys(store: Store) -> list[dict[str, object]]:
    """Return every key's name, role and state; never a secret."""
    with store.session() as session:
        rows = session.scalars(select(KeyRow).order_by(KeyRow.created_at))
        return [
            {"name": r.name, "role": r.role, "active": r.active, "created_at": r.created_at}
            for r in rows
        ]
