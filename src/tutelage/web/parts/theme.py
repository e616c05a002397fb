"""Looks: where the stylesheet and the browser's half come from, light or dark, and the defaults.

Colours and spacing are custom properties in static/tutelage.css (`--tt-…`); a page names those, or
the classes there, and never a colour of its own.
"""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path

from nicegui import app, translations, ui
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from tutelage.core.artifact import content_hash

STATIC = Path(__file__).resolve().parents[1] / "static"
COOKIE = "tutelage_look"  # light, dark; anything else: as the system
FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<rect width="32" height="32" rx="7" fill="#1f5aa8"/>'
    '<path d="M8 10h16v3h-6.4v11h-3.2V13H8z" fill="#fff"/></svg>'
)
PALETTE = (  # read on light and on dark
    "#3b82d6", "#c8641b", "#2f9e6a", "#a06bd6", "#b8860b", "#d1527f", "#138a9c",
)  # fmt: skip
KINDS = ("good", "bad", "warn", "info", "idle")

_look: ContextVar[bool | None] = ContextVar("look", default=None)


class LookMiddleware:
    """Remembers for the length of a request whether this browser wants light or dark."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            wanted = HTTPConnection(scope).cookies.get(COOKIE)
            _look.set({"light": False, "dark": True}.get(wanted or ""))
        await self._inner(scope, receive, send)


class LookPage(ui.page):
    """A page that comes in the look this browser asked for, so that nothing flashes."""

    def resolve_dark(self) -> bool | None:
        """Return True for dark, False for light, None for what the system says."""
        return _look.get()


def install() -> None:
    """Serve our files, put them into every page, and set the defaults of controls.

    Their address names their content, so that no browser keeps an old one.
    """
    content = [path.read_text(encoding="utf-8") for path in sorted(STATIC.iterdir())]
    base = f"/static/{content_hash(content)[:12]}"
    app.add_static_files(base, STATIC)
    ui.add_head_html(f'<link rel="stylesheet" href="{base}/tutelage.css">', shared=True)
    ui.add_head_html(f'<script src="{base}/tutelage.js"></script>', shared=True)
    ui.button.default_props("no-caps unelevated")
    for control in (ui.input, ui.textarea, ui.select, ui.number):
        control.default_props("outlined dense")
    translations.translations["en-US"] |= {
        "connection_lost": "Connection lost. What you type is kept in this browser.",
        "trying_to_reconnect": "Trying again…",
    }
