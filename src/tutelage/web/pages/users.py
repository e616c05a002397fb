"""Who may open this page: people, roles and links for admins; and one's own account.

What is allowed is decided in workflows/people/accounts*.py, as for `tutelage users`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from nicegui import ui

from tutelage.web.auth.sessions import Gate
from tutelage.web.parts.layout import Action, button, card, confirm, empty, facts, heading, notice
from tutelage.web.parts.table import Chip, Column, Query, Rows, Table, table
from tutelage.web.parts.text import text
from tutelage.web.parts.words import ago, count, short
from tutelage.web.view import ADMIN, Page, View
from tutelage.workflows.people import accounts, accounts_links, accounts_sessions

_ROLES = {
    "expert": "Expert: labels, reviews, compares",
    "engineer": "Engineer: data, runs, evaluations, prompts, releases",
    "operator": "Operator: deployments, rollouts, alerts",
    "admin": "Admin: everything, and people",
}
_STATES = {"active": "good", "invited": "warn", "disabled": "idle"}
Person = Mapping[str, Any]


async def show(view: View) -> None:
    """Draw everybody, and a form for one more."""
    heading("People", note="Who may open this page, and what for.")
    if not view.site.accounts:
        _off()
        return
    drawn: list[Table] = []

    async def again() -> None:
        await drawn[0].load()

    with card("Add a person"):
        _add_form(view, again)
    with card("Everybody"):
        drawn.append(
            await table(
                [
                    Column("name", "Name"),
                    Column("roles", "Roles", show=lambda row: ", ".join(row["roles"])),
                    Column("state", "State", show=_state),
                    Column(
                        "signed_in_at", "Last sign-in", show=lambda row: ago(row["signed_in_at"])
                    ),
                    Column("sessions", "Open sessions", kind="number"),
                ],
                partial(_everybody, view),
                key="name",
                on_open=lambda row: _open(view, row, again),
                nothing="Nobody yet. Add the first person above.",
            )
        )


def _off() -> None:
    empty(
        "Nobody signs in here, because only this machine can reach the page. Accounts come on "
        "when Tutelage listens on another address, or with web.auth in tutelage.yaml.",
        'web: {auth: "on"}',
    )


async def _everybody(view: View, query: Query) -> Rows:
    found = await view.call(accounts.people, view.context.store)
    return Rows(found[query.offset : query.offset + query.limit], len(found))


def _state(row: Person) -> Chip:
    return Chip(str(row["state"]), _STATES[row["state"]])  # type: ignore[arg-type]


def _add_form(view: View, again: Callable[[], Awaitable[None]]) -> None:
    with ui.row().classes("items-start gap-4"):
        name = ui.input("Name").props('autocomplete=off aria-label="Name of the new person"')
        boxes = _role_boxes(("expert",), "Roles of the new person")

    async def add() -> None:
        view.require("admin")
        roles = [role for role, box in boxes.items() if box.value]
        made = await view.attempt(
            accounts.add, view.context.store, name.value or "", roles, by=view.user.name
        )
        if made is not None:
            name.value = ""
            await again()
            await _new_link(view, made["name"])

    with ui.row().classes("tt-actions"):
        button(Action("Add and make a link", add, "person_add", "main"))


def _role_boxes(chosen: Sequence[str], name: str) -> dict[str, ui.checkbox]:
    with ui.column().classes("gap-0").props('role="group"') as group:
        group.props["aria-label"] = name
        return {role: ui.checkbox(words, value=role in chosen) for role, words in _ROLES.items()}


async def _open(view: View, row: Person, again: Callable[[], Awaitable[None]]) -> None:
    """Show one person and what an admin can do about them."""
    name = str(row["name"])
    with ui.dialog() as dialog, ui.card().classes("tt-card tt-sheet"):
        dialog.props["aria-label"] = f"Person {name}"
        text("h2", name)
        facts(
            [
                ("State", row["state"]),
                ("Signs in with", _ways(row)),
                ("Added", ago(row["created_at"])),
                ("Last sign-in", ago(row["signed_in_at"])),
                ("Open sessions", row["sessions"]),
            ]
        )
        boxes = _role_boxes(row["roles"], f"Roles of {name}")

        async def change(work: Callable[..., object], *given: object, done: str) -> None:
            view.require("admin")
            if (
                await view.attempt(work, view.context.store, name, *given, by=view.user.name)
                is None
            ):
                return
            dialog.close()
            view.tell(done, "good")
            await again()

        async def save() -> None:
            roles = [role for role, box in boxes.items() if box.value]
            await change(accounts.set_roles, roles, done=f"{name} has these roles now")

        async def end() -> None:
            await change(accounts_sessions.sign_out_everywhere, done=f"{name} is signed out")

        async def disable() -> None:
            if await confirm(f"Shut {name} out? What they did stays.", yes="Shut out", danger=True):
                await change(accounts.set_disabled, True, done=f"{name} is shut out")

        async def enable() -> None:
            await change(accounts.set_disabled, False, done=f"{name} may come in again")

        async def link() -> None:
            dialog.close()
            await _new_link(view, name)

        with ui.row().classes("tt-actions"):
            button(Action("Save roles", save, weight="main"))
            if row["state"] == "disabled":
                button(Action("Let in again", enable))
            else:
                button(Action("New password link", link, "link"))
                button(Action("Sign out everywhere", end, "logout"))
                button(Action("Shut out", disable, "block", "danger"))
            ui.button("Close", on_click=dialog.close).props("flat")
    dialog.on("hide", dialog.delete)
    dialog.open()


def _browser(said: str) -> str:
    """Return what a browser calls itself in two words, where they are known."""
    names = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"),
             ("Safari/", "Safari"))  # fmt: skip
    systems = (("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Mac OS", "macOS"),
               ("Windows", "Windows"), ("Linux", "Linux"))  # fmt: skip
    name = next((known for part, known in names if part in said), "")
    system = next((known for part, known in systems if part in said), "")
    return f"{name} on {system}" if name and system else short(said, 60) or "unknown"


def _ways(row: Person) -> str:
    ways = [
        words
        for given, words in ((row["password"], "a password"), (row["oidc"], "the sign-in server"))
        if given
    ]
    return " or ".join(ways) or "nothing yet"


async def _new_link(view: View, name: str) -> None:
    """Make a one-time link and show it this once."""
    view.require("admin")
    web = Gate(view.site).web
    address = await view.attempt(
        accounts_links.password_link, view.context.store, web, name, by=view.user.name
    )
    if address is None:
        return
    with ui.dialog() as dialog, ui.card().classes("tt-card tt-sheet"):
        dialog.props["aria-label"] = f"Link for {name}"
        text("h2", f"A link for {name}")
        text("p", "Whoever opens it first chooses the password. It works once, for three days.")
        text("code", address, "tt-command")
        with ui.row().classes("tt-actions"):
            ui.button("Copy", icon="content_copy", on_click=lambda: ui.clipboard.write(address))
            ui.button("Close", on_click=dialog.close).props("flat")
    dialog.on("hide", dialog.delete)
    dialog.open()


async def show_own(view: View) -> None:
    """Draw one's own account: roles, password, where one is signed in."""
    note = f"Signed in as {view.user.name}" if view.site.accounts else ""
    heading("Your account", note=note)
    if not view.site.accounts:
        _off()
        return
    with card():
        facts([("Name", view.user.name), ("Roles", ", ".join(sorted(view.user.roles)))])
        with ui.row().classes("tt-actions"):
            button(Action("Change your password", "/auth/password", "password"))
    gate = Gate(view.site)
    now = gate.session(view.request)
    here = now.digest if now is not None else ""
    drawn: list[Table] = []

    async def sessions(query: Query) -> Rows:
        found = await view.call(accounts_sessions.sessions_of, view.context.store, view.user.name)
        return Rows(found[query.offset : query.offset + query.limit], len(found))

    async def end_others() -> None:
        ended = await view.attempt(
            accounts_sessions.sign_out_everywhere,
            view.context.store,
            view.user.name,
            by=view.user.name,
            keep=here,
        )
        if ended is not None:
            view.tell(f"{count(ended, 'other session')} ended", "good")
            await drawn[0].load()

    with card("Where you are signed in", Action("Sign out everywhere else", end_others, "logout")):
        drawn.append(
            await table(
                [
                    Column("browser", "Browser", show=lambda row: _browser(row["browser"])),
                    Column("address", "From"),
                    Column("created_at", "Since", show=lambda row: ago(row["created_at"])),
                    Column("expires_at", "Ends", show=lambda row: ago(row["expires_at"])),
                    Column(
                        "here", "", show=lambda row: "this one" if row["digest"] == here else ""
                    ),
                ],
                sessions,
                key="digest",
            )
        )
        notice("A browser you do not know? End the others, then change your password.")


PAGES = (
    Page("/users", "People", show, roles=ADMIN, group="Admin", icon="group", key="u"),
    Page("/account", "Your account", show_own, icon="person"),
)
