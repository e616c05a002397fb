"""The forms for signing in and out, and for choosing a password: plain HTML, no script.

Each form carries a token that its cookie repeats, so that another site can't send it. What is
right is decided in workflows/people/accounts*.py.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from pathlib import Path
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from tutelage.core.errors import TutelageError
from tutelage.web.auth import origin, sheet
from tutelage.web.auth.entry import FORM_COOKIE, entered, safe_path
from tutelage.web.auth.oidc import SignOn
from tutelage.web.auth.sessions import Gate
from tutelage.web.auth.sheet import Field
from tutelage.workflows.people import accounts_links, accounts_sessions, passwords
from tutelage.workflows.people.accounts_sessions import SignInRefused

_LARGEST = 16_384  # bytes of a form
_HERE = Path(__file__).parent
_RULE = f"At least {passwords.LEAST} letters; several words in a row are easy to keep in mind."
_NEW = [
    Field("password", "New password", "password", fill="new-password", hint=_RULE),
    Field("again", "The same again", "password", fill="new-password"),
]


def routes(gate: Gate) -> list[Route]:
    """Return the routes of every form."""
    forms = Forms(gate)
    sign_on = SignOn(gate) if gate.web.oidc is not None else None
    found = [
        Route("/login", forms.login, methods=["GET", "POST"]),
        Route("/welcome/{token}", forms.welcome, methods=["GET", "POST"]),
        Route("/logout", forms.logout, methods=["GET", "POST"]),
        Route("/auth/password", forms.password, methods=["GET", "POST"]),
        Route("/auth/alive", forms.alive),
        Route("/auth/style.css", _style),
        Route("/auth/alive.js", _script),
    ]
    if sign_on is not None:
        found += [Route("/auth/oidc", sign_on.start), Route("/auth/oidc/back", sign_on.back)]
    return found


class Forms:
    """The forms of one site."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def login(self, request: Request) -> Response:
        """Ask for name and password, and let in whoever knows them."""
        after = safe_path(request.query_params.get("next", ""))
        if self._gate.who(request) is not None and request.method == "GET":
            return RedirectResponse(after, 303)
        if request.method == "GET":
            return self._sign_in_form(request, after)
        given = await _read(request)
        name = given.get("name", "")
        if given["csrf"] != "right":
            return self._sign_in_form(request, after, name, _STALE, 403)
        visit = self._gate.visit(request)
        try:
            token = await asyncio.to_thread(
                accounts_sessions.sign_in,
                self._gate.store, name, given.get("password", ""), visit,
            )  # fmt: skip
        except SignInRefused as error:
            response = self._sign_in_form(
                request, after, name, error.sentence(), 429 if error.wait_s else 401
            )
            if error.wait_s:
                response.headers["retry-after"] = str(error.wait_s)
            return response
        return await self._enter(request, token, after)

    async def welcome(self, request: Request) -> Response:
        """Let whoever holds a one-time link choose a password (and a name, if they are first)."""
        secret = request.path_params["token"]
        link = await asyncio.to_thread(accounts_links.look, self._gate.store, secret)
        if link is None or not self._gate.web.accounts:
            text = "This link does not work any more. A link works once and for a limited time."
            parts = [sheet.said(text), sheet.link("/login", "Go to the sign-in")]
            return sheet.page(self._gate.project, "This link has ended", parts, 410)
        if request.method == "GET":
            return self._welcome_form(request, link.name, "")
        given = await _read(request)
        name = link.name or given.get("name", "")
        if (problem := _problem(given)) is not None:
            return self._welcome_form(request, link.name, name, problem, 400)
        try:
            token = await asyncio.to_thread(
                accounts_links.use,
                self._gate.store, secret, name, given.get("password", ""),
                self._gate.visit(request),
            )  # fmt: skip
        except TutelageError as error:
            return self._welcome_form(request, link.name, name, error.sentence(), 400)
        return await self._enter(request, token, "/")

    async def password(self, request: Request) -> Response:
        """Let a person change their own password; other browsers are signed out."""
        user = self._gate.who(request)
        if user is None or not self._gate.web.accounts:
            return RedirectResponse("/login?next=/auth/password", 303)
        if request.method == "GET":
            return self._password_form(request, user.name)
        given = await _read(request)
        if (problem := _problem(given)) is not None:
            return self._password_form(request, user.name, problem, 400)
        try:
            token = await asyncio.to_thread(
                accounts_sessions.change_password,
                self._gate.store, user.name, given.get("old", ""), given.get("password", ""),
                self._gate.visit(request),
            )  # fmt: skip
        except TutelageError as error:
            return self._password_form(request, user.name, error.sentence(), 400)
        return await self._enter(request, token, "/")

    async def logout(self, request: Request) -> Response:
        """End the session; a link from elsewhere only leads to a button."""
        local = origin.is_own(request)
        if not local:
            csrf, fresh = _csrf(request)
            parts = [sheet.form("/logout", csrf, [], "Sign out"), sheet.link("/", "Stay")]
            if request.method == "POST" and (await _read(request))["csrf"] == "right":
                local = True
            else:
                asked = sheet.page(self._gate.project, "Sign out?", parts)
                return self._with_form_cookie(request, asked, csrf, fresh)
        await self._end(request)
        response = RedirectResponse("/login", 303)
        self._gate.drop(request, response)
        return response

    async def alive(self, request: Request) -> Response:
        """Say whether the session holds, and is the page's: one that lost its connection asks."""
        if self._gate.who(request) is None:
            return Response(status_code=401)
        return Response(status_code=204 if self._gate.owns_page(request) else 410)

    async def _enter(self, request: Request, token: str, after: str) -> Response:
        """End the session there was and give the browser the new one."""
        await self._end(request)
        return entered(self._gate, request, token, after)

    async def _end(self, request: Request) -> None:
        old = self._gate.session(request)
        if old is not None:
            await asyncio.to_thread(accounts_sessions.sign_out, self._gate.store, old.digest)

    def _sign_in_form(
        self, request: Request, after: str, name: str = "", problem: str = "", status: int = 200
    ) -> Response:
        csrf, fresh = _csrf(request)
        fields = [
            Field("name", "Name", value=name, fill="username"),
            Field("password", "Password", "password", fill="current-password"),
        ]
        way = f"?next={quote(after, safe='')}" if after != "/" else ""
        parts = [
            sheet.wrong(problem),
            sheet.form(f"/login{way}", csrf, fields, "Sign in"),
        ]
        oidc = self._gate.web.oidc
        if oidc is not None:
            parts.append(sheet.link(f"/auth/oidc{way}", f"Sign in with {oidc.name}", button=True))
        response = sheet.page(self._gate.project, "Sign in", parts, status)
        if self._gate.token(request):
            self._gate.drop(request, response)
        return self._with_form_cookie(request, response, csrf, fresh)

    def _welcome_form(
        self, request: Request, name: str | None, typed: str, problem: str = "", status: int = 200
    ) -> Response:
        csrf, fresh = _csrf(request)
        hint = "" if name else "Small letters, digits and . _ @ + -"
        who = Field(
            "name", "Name", value=name or typed, fill="username", hint=hint, fixed=bool(name)
        )
        title = "Choose your password" if name else "Make the first admin"
        parts = [
            sheet.wrong(problem),
            sheet.form(request.url.path, csrf, [who, *_NEW], "Save and sign in"),
        ]
        response = sheet.page(self._gate.project, title, parts, status)
        return self._with_form_cookie(request, response, csrf, fresh)

    def _password_form(
        self, request: Request, name: str, problem: str = "", status: int = 200
    ) -> Response:
        csrf, fresh = _csrf(request)
        fields = [
            Field("name", "Name", value=name, fill="username", fixed=True),
            Field("old", "Present password", "password", fill="current-password"),
            *_NEW,
        ]
        parts = [
            sheet.wrong(problem),
            sheet.form("/auth/password", csrf, fields, "Change the password"),
            sheet.said("Your other browsers are signed out."),
            sheet.link("/", "Back"),
        ]
        response = sheet.page(self._gate.project, "Change your password", parts, status)
        return self._with_form_cookie(request, response, csrf, fresh)

    def _with_form_cookie(
        self, request: Request, response: Response, csrf: str, fresh: bool
    ) -> Response:
        if fresh:
            secure = origin.is_https(request, self._gate.web)
            response.set_cookie(FORM_COOKIE, csrf, httponly=True, samesite="strict", secure=secure)
        return response


_STALE = "this form was too old, or another site sent it: try again"


def _problem(given: dict[str, str]) -> str | None:
    if given["csrf"] != "right":
        return _STALE
    if given.get("password") != given.get("again"):
        return "the two passwords differ"
    return None


def _csrf(request: Request) -> tuple[str, bool]:
    """Return the token of this browser's forms, and whether it is new."""
    kept = request.cookies.get(FORM_COOKIE, "")
    return (kept, False) if len(kept) >= 32 else (secrets.token_urlsafe(32), True)


async def _read(request: Request) -> dict[str, str]:
    """Return a form's fields; `csrf` is "right" or "wrong"."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST:
            return {"csrf": "wrong"}
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    given = {name: values[0] for name, values in fields.items()}
    kept = request.cookies.get(FORM_COOKIE, "")
    sent = given.get("csrf", "")
    same = len(kept) >= 32 and hmac.compare_digest(kept.encode(), sent.encode())
    return {**given, "csrf": "right" if same else "wrong"}


async def _style(request: Request) -> Response:
    return _file("style.css", "text/css")


async def _script(request: Request) -> Response:
    return _file("alive.js", "text/javascript")


def _file(name: str, kind: str) -> Response:
    return FileResponse(_HERE / name, media_type=kind, headers={"cache-control": "max-age=3600"})
