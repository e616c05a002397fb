"""Where a request comes from: this page's own address, or another site that borrows a browser.

A browser names the origin of what it sends. Whatever another origin sends is refused, a websocket
as well as a form; so is a name that merely points at this machine while nobody signs in.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from tutelage.core.config_web import Web, is_loopback

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def refusal(connection: HTTPConnection, web: Web) -> str | None:
    """Return why this request may not be answered, or None."""
    headers = connection.headers
    host = headers.get("host", "")
    if not web.accounts and not _is_ours(host, web):
        return f"this page is not called {host[:100]!r}: open it as {web.address}"
    origin = headers.get("origin")
    if origin is not None:
        return None if _same(origin, host, web) else "the request comes from another site"
    site = headers.get("sec-fetch-site", "none")
    if site in ("none", "same-origin"):
        return None
    if headers.get("sec-fetch-mode") == "navigate" and _method(connection) in _READING:
        return None  # a link that somebody followed
    return "the request comes from another site"


def is_https(connection: HTTPConnection, web: Web) -> bool:
    """Return whether the browser speaks https, here or to a server in front."""
    ours = web.url is not None and web.url.startswith("https://")
    return ours or connection.url.scheme in ("https", "wss")


def _method(connection: HTTPConnection) -> str:
    return str(connection.scope.get("method", "WEBSOCKET"))


def _same(origin: str, host: str, web: Web) -> bool:
    if web.url is not None and origin.casefold() == web.url.casefold():
        return True
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.casefold() == host.casefold() != ""


def _is_ours(host: str, web: Web) -> bool:
    """Return whether a Host header names this machine, by a name that nobody else can give out."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == web.host or (web.url is not None and name == urlsplit(web.url).hostname):
        return True
    if is_loopback(name):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_own(connection: HTTPConnection) -> bool:
    """Return whether a browser says that a page of this address sent the request."""
    headers = connection.headers
    if "origin" in headers:
        return True  # the guard has refused every other one
    return headers.get("sec-fetch-site") == "same-origin"
