"""The page process: opens the project, registers every page, serves it. Draws nothing itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from nicegui import Client, app, ui
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tutelage.web import frame, registry
from tutelage.web.parts import theme
from tutelage.web.view import Page, Site, View, sentence
from tutelage.workflows.context import open_context
from tutelage.workflows.release.registry import leave_to_child

RECONNECT_S = 30.0  # how long a tab may be offline before its page is made anew
_BUILD_S = 30.0  # how long a page may take to be made
_log = logging.getLogger(__name__)


def make_app(directory: Path, *, host: str, port: int) -> FastAPI:
    """Return the application of one project's page. Once a process: NiceGUI keeps one app."""
    return make_site(directory, host=host, port=port)[0]


def make_site(directory: Path, *, host: str, port: int) -> tuple[FastAPI, Site]:
    """Return the application and what it runs on.

    Accounts take part where web/auth/gate.py is: `protect(app, site)` adds its routes and
    middleware to the application and puts itself in for site.who and site.write.
    """
    context = open_context(directory)
    leave_to_child(context)
    site = Site(context, host, port)
    served = FastAPI(title="Tutelage", docs_url=None, redoc_url=None, openapi_url=None)
    served.state.site = site
    _protect(served, site)
    for page in registry.pages():
        _register(site, page)
    app.exception_handler(404)(_nowhere(site))
    app.on_exception(_log_it)
    theme.install()
    served.add_middleware(theme.LookMiddleware)
    served.add_middleware(_Timing)
    ui.run_with(
        served,
        title="Tutelage",
        favicon=theme.FAVICON,
        dark=None,
        language="en-US",
        reconnect_timeout=RECONNECT_S,
        show_welcome_message=False,
        binding_refresh_interval=0.3,
    )
    return served, site


def _protect(served: FastAPI, site: Site) -> None:
    name = "tutelage.web.auth.gate"
    if find_spec("tutelage.web.auth") is not None and find_spec(name) is not None:
        import_module(name).protect(served, site)


class _Timing:
    """Says in each answer how long it took here, in milliseconds (Server-Timing)."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        started = time.perf_counter()

        async def tell(message: Any) -> None:
            if message["type"] == "http.response.start":
                spent = (time.perf_counter() - started) * 1000
                message["headers"] = [
                    *message["headers"],
                    (b"server-timing", f"app;dur={spent:.1f}".encode()),
                ]
            await send(message)

        await self._inner(scope, receive, tell)


def _register(site: Site, page: Page) -> None:
    async def build(request: Request) -> Response | None:
        return await _build(site, page, request)

    theme.LookPage(page.path, title=f"{page.title} · Tutelage", response_timeout=_BUILD_S)(build)


async def _build(site: Site, page: Page, request: Request) -> Response | None:
    """Draw a page for whoever asks; the answer is a redirect where they must sign in first."""
    user = site.who(request)
    if page.public:
        view = View(site, user or frame.NOBODY, request, page)
        with frame.bare(view):
            return await _show(view, request)
    if user is None:
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{site.sign_in}?next={quote(path, safe='')}", status_code=303)
    view = View(site, user, request, page)
    await view.call(site.refresh)
    with frame.around(view, registry.navigation(user, registry.pages())):
        if user.may(page.roles):
            return await _show(view, request)
        ui.status_code(403)
        frame.forbidden(view)
    return None


async def _show(view: View, request: Request) -> Response | None:
    """Let the page draw itself; what goes wrong is said in its place."""
    place = ui.column().classes("tt-page")
    ui.on_exception(lambda error: view.tell(sentence(error), "bad"))
    try:
        with place:
            answer: Any = await view.page.show(view, **request.path_params)
    except Exception as error:  # a page that can't be drawn says why
        place.clear()
        ui.status_code(frame.status_of(error))
        with place:
            frame.failed(view, error)
        return None
    return answer if isinstance(answer, Response) else None


def _nowhere(site: Site) -> Callable[[Request, Exception], Any]:
    missing = Page("", "Not found", _no_page)

    async def answer(request: Request, error: Exception) -> Response:
        if request.url.path.startswith("/_nicegui") or request.method != "GET":
            return Response("not found", 404, media_type="text/plain")
        with Client(theme.LookPage("", title="Not found · Tutelage"), request=request) as client:
            user = site.who(request)
            view = View(site, user or frame.NOBODY, request, missing)
            if user is None:
                with frame.bare(view):
                    frame.missing(view)
            else:
                with frame.around(view, registry.navigation(user, registry.pages())):
                    frame.missing(view)
        return client.build_response(request, 404)

    return answer


async def _no_page(view: View) -> None:
    frame.missing(view)


def _log_it(error: Exception) -> None:
    _log.error("a page failed", exc_info=error)
