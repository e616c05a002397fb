"""Who is behind a request or a websocket: the session cookie, looked up.

It lets nobody in or out: forms.py and oidc.py do. Without accounts everybody is the local user.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import parse_qs

from nicegui import Client
from starlette.requests import HTTPConnection
from starlette.responses import Response

from tutelage.core.config_web import Web
from tutelage.store.base import Store
from tutelage.web.auth import origin
from tutelage.web.view import LOCAL, Site, User
from tutelage.workflows.people import audit
from tutelage.workflows.people.accounts_sessions import SignedIn, Visit, digest_of, signed_in

_FRESH_S = 1.0  # how long a session is trusted before it is looked up again
_MOST = 4096  # sessions in memory


class Gate:
    """The sessions of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._seen: dict[str, tuple[float, SignedIn]] = {}
        settings = site.context.config.web
        self.web: Web = settings.model_copy(update={"host": site.host, "port": site.port})
        self.project = site.context.config.name

    @property
    def store(self) -> Store:
        """Where people and sessions are kept."""
        return self._site.context.store

    def who(self, connection: HTTPConnection) -> User | None:
        """Return who is signed in, or None."""
        if not self.web.accounts:
            return LOCAL
        found = self.session(connection)
        return User(found.person.name, found.person.roles) if found else None

    def session(self, connection: HTTPConnection) -> SignedIn | None:
        """Return the session that a request's cookie stands for, if it holds."""
        token = connection.cookies.get(self.cookie(connection))
        if not token:
            return None
        digest, now = digest_of(token), time.monotonic()
        seen = self._seen.get(digest)
        if seen is not None and now - seen[0] < _FRESH_S:
            return seen[1]
        found = signed_in(self.store, digest)
        if found is None:
            self._seen.pop(digest, None)
            return None
        if len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen[digest] = (now, found)
        return found

    def owns_page(self, connection: HTTPConnection) -> bool:
        """Return whether a websocket belongs to the session that its page was made for."""
        query = parse_qs(str(connection.scope.get("query_string", b""), "latin-1"))
        client = Client.instances.get(query.get("client_id", [""])[0])
        if client is None or client.request is None:
            return True  # there is no such page: the library tells the browser to load it anew
        return self.token(connection) == self.token(client.request)

    def token(self, connection: HTTPConnection) -> str:
        """Return what a request's session cookie says."""
        return connection.cookies.get(self.cookie(connection), "")

    def cookie(self, connection: HTTPConnection) -> str:
        """Return the session cookie's name: its own for each project, as ports share cookies."""
        prefix = "__Host-" if origin.is_https(connection, self.web) else ""
        return f"{prefix}tutelage_{self.project}"

    def keep(self, connection: HTTPConnection, response: Response, token: str) -> None:
        """Give the browser the cookie of a new session."""
        self._set(connection, response, token, round(self.web.session_hours * 3600))

    def drop(self, connection: HTTPConnection, response: Response) -> None:
        """Take the session cookie away, and forget what is known of sessions."""
        self._seen.clear()
        self._set(connection, response, "", 0)

    def visit(self, connection: HTTPConnection) -> Visit:
        """Return where a request comes from."""
        address = connection.client.host if connection.client else ""
        browser = connection.headers.get("user-agent", "")
        return Visit(address, browser, self.web.session_hours)

    def write(self, user: str, action: str, what: Mapping[str, str]) -> None:
        """Keep one line of the audit log."""
        audit.record(self.store, user, action, what)

    def _set(
        self, connection: HTTPConnection, response: Response, value: str, seconds: int
    ) -> None:
        response.set_cookie(
            self.cookie(connection),
            value,
            max_age=seconds,
            path="/",
            httponly=True,
            samesite="lax",
            secure=origin.is_https(connection, self.web),
        )
