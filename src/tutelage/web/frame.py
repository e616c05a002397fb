"""What stands around every page: navigation, who is signed in, light and dark, the sheet of keys.

Also the pages for what is missing, forbidden or broken. It knows no project data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nicegui import ui

from tutelage.core.errors import TutelageError
from tutelage.web.parts.layout import empty, heading
from tutelage.web.parts.text import text
from tutelage.web.parts.words import key_name
from tutelage.web.view import NotAllowed, Page, User, View, sentence

NOBODY = User("", frozenset())
_UNDER = {"/mining": "/traffic", "/lineage/{what}": "/releases"}  # not in the menu themselves
_LOOKS = (("light", "Light", "light_mode"), ("dark", "Dark", "dark_mode"),
          ("auto", "As the system", "contrast"))  # fmt: skip
_ALWAYS = (
    ("g h", "Home"),
    ("?", "This sheet"),
)


@contextmanager
def around(view: View, groups: Mapping[str, Sequence[Page]]) -> Iterator[None]:
    """Draw header and navigation; what the caller draws inside is the page."""
    _shell(view, groups)
    with ui.header().classes("tt-header"):
        menu = ui.button(icon="menu").props('flat dense round aria-label="Navigation"')
        menu.classes("tt-menu")
        ui.link("Tutelage", "/").classes("tt-brand")
        text("span", view.context.config.name, "tt-project")
        ui.space()
        sheet = _sheet(view, groups)
        ui.button(icon="keyboard", on_click=sheet).props('flat dense round aria-label="Keys"')
        _look_menu()
        _user_menu(view)
    drawer = _drawer()
    with drawer:
        _navigation(view, groups)
    menu.on_click(drawer.toggle)
    ui.skip_link("Skip to the page", target=ui.context.client.content)
    ui.context.client.content.classes("tt-content")
    yield


def _drawer() -> ui.left_drawer:
    """Open where the window is wide, and moved by the browser alone.

    Left to itself the library asks the browser whether it opened the drawer, and a browser that
    is busy for a second, or has gone on to the next page, would stand in the log as a failed page.
    """
    drawer = ui.left_drawer(value=False, bordered=True).classes("tt-drawer")
    drawer.props("width=232 show-if-above")
    drawer.set_value(None)
    return drawer


@contextmanager
def bare(view: View) -> Iterator[None]:
    """Draw next to nothing: for people who are not signed in."""
    _shell(view, {})
    ui.context.client.content.classes("tt-content tt-bare")
    yield


def _shell(view: View, groups: Mapping[str, Sequence[Page]]) -> None:
    """Tell the browser's half (static/tutelage.js) what it needs, and listen to it."""
    go = {"h": "/"} | {page.key: page.path for found in groups.values() for page in found
                       if page.key}  # fmt: skip
    shell = ui.element("div").classes("tt-shell")
    shell.props["data-tt-user"] = view.user.name
    shell.props["data-tt-go"] = json.dumps(go)

    async def key(event: Any) -> None:
        await view.press(str(event.args))

    def seen(event: Any) -> None:
        view.visible = bool(event.args)

    ui.on("tt_key", key)
    ui.on("tt_visible", seen)


def _navigation(view: View, groups: Mapping[str, Sequence[Page]]) -> None:
    here = _UNDER.get(view.page.path, view.page.path)
    with ui.element("nav").props('aria-label="Pages"').classes("tt-nav"):
        _entry(Page("/", "Home", view.page.show, icon="home"), here)
        for name, found in groups.items():
            text("div", name, "tt-nav-group")
            for page in found:
                _entry(page, here)


def _entry(page: Page, here: str) -> None:
    with ui.link(target=page.path).classes("tt-nav-link") as link:
        if _marks(page.path, here):
            link.props["aria-current"] = "page"
        ui.icon(page.icon or "chevron_right").props('aria-hidden="true"')
        text("span", page.title)


def _marks(entry: str, here: str) -> bool:
    """Return whether the page is the entry's own or one below it."""
    return here == entry or (entry != "/" and here.startswith(f"{entry}/"))


def _look_menu() -> None:
    with ui.button(icon="contrast").props('flat dense round aria-label="Light or dark"'), ui.menu():
        for value, name, icon in _LOOKS:
            item = ui.menu_item().on("click", js_handler=f'() => tutelage.look("{value}")')
            with item, ui.row().classes("items-center gap-3 no-wrap"):
                ui.icon(icon).props('aria-hidden="true"')
                text("span", name)


def _user_menu(view: View) -> None:
    if not view.site.accounts:
        return
    named = ui.button(view.user.name, icon="person").props("flat dense no-caps")
    named.props["aria-label"] = f"Signed in as {view.user.name}"
    with named, ui.menu():
        for role in sorted(view.user.roles):
            ui.menu_item(f"Role: {role}").props("disable")
        ui.menu_item("Your account", lambda: ui.navigate.to("/account"))
        leave = ui.menu_item("Sign out")
        leave.on("click", js_handler=f'() => tutelage.post("{view.site.sign_out}")')


def _sheet(view: View, groups: Mapping[str, Sequence[Page]]) -> Any:
    """Return what opens the sheet of keys; it is drawn when it is asked for."""

    def show() -> None:
        with ui.dialog() as dialog, ui.card().classes("tt-card tt-sheet"):
            text("h2", "Keys")
            here = [(key, what) for key, (what, _) in view.bindings.items() if key != "?"]
            go = [(f"g {page.key}", page.title) for found in groups.values() for page in found
                  if page.key]  # fmt: skip
            for title, rows in (("On this page", here), ("Go to", [*_ALWAYS, *go])):
                if rows:
                    _keys_of(title, rows)
            ui.button("Close", on_click=dialog.close).props("flat autofocus")
        dialog.on("hide", dialog.delete)
        dialog.open()

    view.keys({"?": ("Show the keys", show)})
    return show


def _keys_of(title: str, rows: Sequence[tuple[str, str]]) -> None:
    text("h3", title)
    with ui.element("dl").classes("tt-keylist"):
        for key, what in rows:
            with ui.element("dt"):
                for part in key.split(" "):
                    text("kbd", key_name(part))
            text("dd", what)


def missing(view: View) -> None:
    """Say that there is no such page."""
    heading("There is no such page")
    empty("The address leads nowhere. It may be of something that was removed.")
    ui.link("Go home", "/")


def forbidden(view: View) -> None:
    """Say that the person's roles do not carry this page."""
    heading("This page is not yours to see")
    roles = " or ".join(sorted(view.page.roles))
    empty(f"{view.page.title} needs the role {roles}. An admin can give it to you.")
    ui.link("Go home", "/")


def failed(view: View, error: BaseException) -> None:
    """Say in one sentence why a page can't be drawn."""
    heading("This can't be shown")
    empty(sentence(error))
    ui.link("Go home", "/")


def status_of(error: BaseException) -> int:
    """Return the HTTP status of a page that could not be drawn."""
    if isinstance(error, NotAllowed):
        return 403
    return 404 if isinstance(error, TutelageError) else 500
