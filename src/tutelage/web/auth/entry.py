"""The way in, once somebody is known: where it leads, and the cookie that is given."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tutelage.web.auth.sessions import Gate

FORM_COOKIE = "tutelage_form"
_OWN = ("/login", "/logout", "/auth/", "/welcome/")  # nobody is led back there


def safe_path(path: str) -> str:
    """Return a path of this page; whatever leads elsewhere becomes the home page."""
    plain = path.startswith("/") and path.isprintable() and "\\" not in path
    parts = urlsplit(path) if plain and not path.startswith("//") else None
    inner = parts is not None and not parts.scheme and not parts.netloc
    return path if inner and not path.startswith(_OWN) else "/"


def entered(gate: Gate, request: Request, token: str, after: str) -> Response:
    """Return the answer that gives the browser its new session and leads it on."""
    response = RedirectResponse(after, 303)
    gate.keep(request, response, token)
    response.delete_cookie(FORM_COOKIE)
    return response
