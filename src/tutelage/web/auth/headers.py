"""What every answer tells the browser: run nothing of others, show this in no frame of others.

The page's library compiles templates in the browser and sets styles in place, so its pages need
'unsafe-eval' and inline scripts; the forms for signing in need neither and allow neither.
"""

from __future__ import annotations

from collections.abc import Iterable

_COMMON = (
    "default-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-src 'self'; "
    "frame-ancestors 'self'; worker-src 'self' blob:; manifest-src 'self'; "
)
_PAGE = (
    f"{_COMMON}script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'"
)
_FORM = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_ALWAYS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"SAMEORIGIN",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
FORM = {"content-security-policy": _FORM, "x-frame-options": "DENY", "cache-control": "no-store"}
_ASSETS = "/_nicegui/"  # scripts and styles of the library: the same for everybody


def with_policy(given: Iterable[tuple[bytes, bytes]], path: str) -> list[tuple[bytes, bytes]]:
    """Return an answer's headers with those that were not set; answers for people aren't kept."""
    headers = list(given)
    there = {name.lower() for name, _ in headers}
    wanted = {**_ALWAYS, b"content-security-policy": _PAGE.encode()}
    if not path.startswith(_ASSETS):
        wanted[b"cache-control"] = b"no-store"
    return headers + [(name, value) for name, value in wanted.items() if name not in there]
