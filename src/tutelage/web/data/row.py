"""One row's story in a dialog: its text, origin, twins, findings, what people decided on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from tutelage.web.parts.layout import facts
from tutelage.web.parts.table import plain_table
from tutelage.web.parts.text import passage, text
from tutelage.web.parts.words import short
from tutelage.web.view import View
from tutelage.workflows.data import versions


async def show_row(view: View, row: Mapping[str, Any]) -> None:
    """Open the dialog of a row."""
    found = await view.attempt(versions.show, view.context, str(row["id"]))
    if found is None:
        return
    with ui.dialog() as dialog, ui.card().classes("tt-card w-full max-w-3xl"):
        dialog.props["aria-label"] = f"Row {found['id']}"
        text("h2", f"Row {found['id']}")
        text("h3", "Input")
        passage(found["input"] or "–")
        text("h3", "Answer")
        passage(found["answer"] or "–")
        origin = found["origin"] or {}
        facts(
            (
                ("Label", found["label"]),
                ("Side", found["side"]),
                ("Source", origin.get("source") or origin.get("kind")),
                ("Author", origin.get("author")),
                ("Rows like it", (found["cluster"] or {}).get("rows", 1) - 1),
            )
        )
        _tables(found)
        ui.button("Close", on_click=dialog.close).props("flat autofocus")
    dialog.on("hide", dialog.delete)
    dialog.open()


def _tables(found: Mapping[str, Any]) -> None:
    twins = (found["cluster"] or {}).get("others") or ()
    if twins:
        text("h3", "Rows like it")
        rows = [(twin["side"], twin["label"], short(twin["input"], 200)) for twin in twins]
        plain_table(("side", "label", "input"), rows, name="Rows like it")
    for name, title, columns in (
        ("findings", "Findings", ("id", "detail")),
        ("repairs", "Repairs", ("at", "author", "action", "value", "reason")),
        ("annotations", "What people answered", ("annotator", "label", "answer")),
        ("versions", "In these versions", ("hash", "side", "reason")),
    ):
        if found[name]:
            text("h3", title)
            cells = [[each.get(column) for column in columns] for each in found[name]]
            plain_table(columns, cells, name=title)
