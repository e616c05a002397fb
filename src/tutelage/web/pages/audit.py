"""The audit log: who did what, newest first, by person and action. It changes nothing."""

from __future__ import annotations

from nicegui import ui

from tutelage.web.parts.layout import Action, button, card, heading, notice
from tutelage.web.parts.table import Column, Query, Row, Rows, table
from tutelage.web.parts.words import when
from tutelage.web.view import ADMIN, Page, View
from tutelage.workflows.people import audit


async def show(view: View) -> None:
    """Draw the log with its filters."""
    heading("Audit log", note="Who did what. Lines are added and never changed.")
    with card():
        with ui.row().classes("items-center gap-4"):
            who = ui.input("Who").props("clearable")
            did = ui.input("Action begins with").props("clearable")
            button(Action("Check the log", lambda: _check(view), "fact_check"))

        async def lines(query: Query) -> Rows:
            found, total = await view.call(
                audit.lines,
                view.context.store,
                user=(who.value or "").strip() or None,
                action=(did.value or "").strip() or None,
                limit=query.limit,
                offset=query.offset,
            )
            return Rows(found, total)

        def nothing() -> str:
            asked = who.value or did.value
            return "Nothing yet that fits." if asked else "Nothing was done on these pages yet."

        drawn = await table(
            [
                Column("at", "When", show=lambda row: when(row["at"])),
                Column("user", "Who"),
                Column("action", "Did"),
                Column("what", "What", show=_what, wide=True),
                Column("address", "From", show=lambda row: row["address"] or "–"),
            ],
            lines,
            key="id",
            nothing=nothing,
        )

        for control in (who, did):
            control.props("debounce=300")
            control.on_value_change(drawn.load)


async def _check(view: View) -> None:
    """Say whether every line follows from the one before."""
    broken = await view.attempt(_first_broken, view)
    if broken is None:
        return
    with ui.dialog() as dialog, ui.card().classes("tt-card tt-sheet"):
        dialog.props["aria-label"] = "The log was checked"
        if broken:
            notice(f"The log was changed at line {broken} or just before it.", "bad")
        else:
            notice("No line was changed or taken out.", "good")
        ui.button("Close", on_click=dialog.close).props("flat autofocus")
    dialog.on("hide", dialog.delete)
    dialog.open()


def _first_broken(view: View) -> int:
    return audit.first_broken(view.context.store) or 0


def _what(row: Row) -> str:
    return ", ".join(f"{name}: {value}" for name, value in row["what"].items()) or "–"


PAGES = (Page("/audit", "Audit log", show, roles=ADMIN, group="Admin", icon="history", key="a"),)
