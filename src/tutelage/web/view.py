"""What a page is given: the project, who looks at it, and how to act without blocking anybody.

It draws nothing but short notices: frame.py draws around a page, parts/ inside it.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from nicegui import background_tasks, helpers, ui
from starlette.requests import HTTPConnection

from tutelage.core.errors import TutelageError
from tutelage.core.workspace import disk_errors
from tutelage.workflows.context import Context, reread

ROLES = ("expert", "engineer", "operator", "admin")
EVERYBODY = frozenset(ROLES)
TEACH = frozenset({"expert", "engineer", "admin"})
BUILD = frozenset({"engineer", "admin"})
OPERATE = frozenset({"operator", "admin"})
ADMIN = frozenset({"admin"})

_THREADS = ThreadPoolExecutor(max_workers=12, thread_name_prefix="page")
_FRESH_S = 2.0  # how long the settings are trusted before they are looked at again
_KINDS = {"good": "positive", "bad": "negative", "warn": "warning", "info": "info"}
_log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")
Work = Callable[[], object]


class NotAllowed(TutelageError):
    """The person's roles do not carry this."""


@dataclass(frozen=True)
class User:
    """Who looks at a page."""

    name: str
    roles: frozenset[str]

    def may(self, roles: frozenset[str]) -> bool:
        """Return whether one of these roles is theirs. An admin may everything."""
        return "admin" in self.roles or bool(self.roles & roles)


LOCAL = User("local", EVERYBODY)


@dataclass(frozen=True)
class Page:
    """One page: where it lies, what draws it, who may see it, where it stands in the navigation.

    `key` opens it after "g" (registry.KEYS gives them out). A `public` page needs no
    sign-in and has no navigation around it.
    """

    path: str
    title: str
    show: Callable[..., Awaitable[object]]
    roles: frozenset[str] = EVERYBODY
    group: str | None = None
    icon: str = ""
    key: str | None = None
    public: bool = False


def _local(connection: HTTPConnection) -> User | None:
    return LOCAL


def _unwritten(user: str, action: str, what: Mapping[str, str]) -> None:
    _log.info("%s: %s %s", user, action, dict(what))


@dataclass
class Site:
    """One running page process. Accounts (web/auth) put their own in for `who` and `write`.

    `who(connection)` is called often, on the event loop: it returns who is signed in, or None.
    `write(user, action, what)` keeps one line of the audit log; it runs in a thread.
    `notes` are told to whoever starts the process, after its address.
    """

    context: Context
    host: str
    port: int
    who: Callable[[HTTPConnection], User | None] = _local
    write: Callable[[str, str, Mapping[str, str]], None] = _unwritten
    accounts: bool = False
    sign_in: str = "/login"
    sign_out: str = "/logout"
    notes: list[str] = field(default_factory=list)
    _read: tuple[float, int] = (float("-inf"), 0)  # when the settings were read, and their time

    def refresh(self) -> None:
        """Take up a changed tutelage.yaml or a newly published prompt; broken ones are ignored."""
        now, written = time.monotonic(), self._written()
        if now - self._read[0] < _FRESH_S and written == self._read[1]:
            return
        self._read = (now, written)
        try:
            self.context = reread(self.context)
        except TutelageError as error:
            _log.warning("the settings as they were are kept: %s", error)

    def _written(self) -> int:
        try:
            return self.context.workspace.config_path.stat().st_mtime_ns
        except OSError:
            return 0


class View:
    """One person's look at one page, from the request until the tab is closed."""

    def __init__(self, site: Site, user: User, request: HTTPConnection, page: Page) -> None:
        self.site, self.user, self.request, self.page = site, user, request, page
        self.bindings: dict[str, tuple[str, Callable[[], object]]] = {}
        self.visible = True
        self._keys: ui.element | None = None
        self._turn = asyncio.Lock()

    @property
    def context(self) -> Context:
        """The opened project."""
        return self.site.context

    async def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a thread and return what it gives; raises TutelageError and bugs."""
        ready = partial(contextvars.copy_context().run, partial(work, *args, **kwargs))
        loop = asyncio.get_running_loop()
        with disk_errors(Path(self.context.workspace.root)):
            return await loop.run_in_executor(_THREADS, ready)

    async def attempt(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Run `work` in a thread; an error is shown as one sentence, and None returned."""
        try:
            return await self.call(work, *args, **kwargs)
        except Exception as error:  # every error is told, and a bug is logged
            self.tell(sentence(error), "bad")
            return None

    def can(self, *roles: str) -> bool:
        """Return whether the person has one of these roles."""
        return self.user.may(frozenset(roles))

    def require(self, *roles: str) -> None:
        """Raise NotAllowed unless the person is still signed in and has one of these roles."""
        now = self.site.who(self.request)
        if now is None or now.name != self.user.name:
            raise NotAllowed("you are signed out", fix="Sign in again; what you typed is kept")
        if not now.may(frozenset(roles)):
            named = " or ".join(sorted(roles))
            raise NotAllowed(f"this needs the role {named}", fix="Ask an admin for it")
        self.user = now

    def audit(self, action: str, **what: str) -> None:
        """Write one line of who did what into the audit log."""
        wait = self.call(self.site.write, self.user.name, action, what)
        background_tasks.create(wait, name=f"audit {action}")

    def tell(self, text: str, kind: str = "info") -> None:
        """Show a short notice; `kind` is good, bad, warn or info."""
        lasting = kind in ("bad", "warn")
        ui.notify(
            text,
            type=_KINDS.get(kind, "info"),  # type: ignore[arg-type]
            position="bottom",
            multi_line=len(text) > 80,
            close_button="Close" if lasting else False,
            timeout=10_000 if lasting else 3_000,
        )

    def every(self, seconds: float, work: Work) -> None:
        """Do `work` every so often while the page is looked at; one at a time, until it closes."""
        told: set[str] = set()

        async def tick() -> None:
            if not self.visible:
                return
            try:
                await done(work)
                told.clear()
            except Exception as error:  # told once, not every few seconds
                if (text := sentence(error)) not in told:
                    told.add(text)
                    self.tell(text, "bad")

        ui.timer(seconds, tick, immediate=False)

    def keys(self, bindings: Mapping[str, tuple[str, Callable[[], object]]]) -> None:
        """Let keys do things here: {key: (what it does, handler)}; "?" shows them.

        A key is what the browser calls it ("1", "a", "Enter", "ArrowDown"), with "ctrl+", "alt+"
        or, before a named key, "shift+" in front; the Mac's command key counts as ctrl. Keys
        without ctrl are left alone while somebody types. A key given anew gets the new handler.
        Handlers run one at a time, in the order of the keys.
        """
        self.bindings.update(bindings)
        if self._keys is None:
            self._keys = ui.element("div").classes("tt-keys")
        self._keys.props["data-tt-keys"] = json.dumps(list(self.bindings))

    async def press(self, key: str) -> None:
        """Do what a key is bound to; the frame calls it."""
        async with self._turn:
            bound = self.bindings.get(key)
            if bound is not None:
                await done(bound[1])


async def done(work: Work) -> None:
    """Run a handler, whether it is a coroutine function or a plain one."""
    result = work()
    if helpers.should_await(result):
        await result


def sentence(error: BaseException) -> str:
    """Return what a person is told of an error; a bug is logged with its traceback."""
    if isinstance(error, TutelageError):
        return error.sentence()
    _log.error("a page failed", exc_info=error)
    kind = type(error).__name__
    return f"Something went wrong here ({kind}). The log of the page says more: logs/web.log."
