"""The list of dataset versions: a new one, two of them side by side."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from nicegui import ui

from tutelage.web.parts.layout import Action, card, empty, heading, notice
from tutelage.web.parts.table import Chip, Column, table
from tutelage.web.parts.text import text
from tutelage.web.parts.words import ago, count
from tutelage.web.runs.start import JobBar, starting
from tutelage.web.view import View
from tutelage.workflows import jobs
from tutelage.workflows.context import last_output
from tutelage.workflows.curate import quarantine_sentence
from tutelage.workflows.data.versions import versions

_COLUMNS = (
    Column("hash", "Version"),
    Column("state", "State"),
    Column("made", "Made"),
    Column("train", "Train", "number"),
    Column("validation", "Validation", "number"),
    Column("test", "Test", "number"),
    Column("after", "Made after"),
    Column("sources", "Made from", wide=True),
)


async def show_list(view: View) -> None:
    """Draw the list."""
    curate = starting(view, "curate")
    view.keys({"n": ("Make a new version", curate)})
    heading(
        "Data",
        Action("Make a new version", curate, icon="add", weight="main", key="n"),
        note="Frozen versions of the rows. What was left out stays, with its reason.",
    )
    working = await view.call(jobs.running, view.context, "curate")
    for job in working:
        with card("A new version is being made"):
            JobBar(view, job, ended=lambda job: ui.navigate.reload())
    found = await view.call(versions, view.context)
    if not found:
        empty(
            "There is no dataset version yet. Put rows into data/ and make the first one.",
            "tutelage data split",
        )
        return
    waiting = await view.call(_waiting, view)
    if waiting:
        notice(waiting, "warn")
    with card("Versions"):
        await table(_COLUMNS, [_row(each) for each in found], key="hash", on_open="/data/{hash}")
    there = [each["hash"] for each in found if each["on_disk"]]
    if len(there) > 1:
        _compare(there)


def _waiting(view: View) -> str | None:
    newest = last_output(view.context, "curate")
    said = quarantine_sentence(newest.meta) if newest else None
    return f"{said}." if said else None


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    files, repairs = len(entry["sources"]), len(entry["repairs"])
    made_from = count(files, "file") + (f", {repairs} repaired" if repairs else "")
    return {
        "hash": entry["hash"],
        "state": _state(entry),
        "made": ago(datetime.fromisoformat(entry["created_at"])),
        **{side: entry["counts"].get(side, 0) for side in ("train", "validation", "test")},
        "after": ", ".join(entry["parents"]) or "–",
        "sources": made_from,
    }


def _state(entry: dict[str, Any]) -> Chip:
    if entry["erased"]:
        return Chip("erased", "warn")
    if not entry["on_disk"]:
        return Chip("not on this disk", "warn")
    return Chip("current", "good") if entry["current"] else Chip("earlier", "idle")


def _compare(there: list[str]) -> None:
    with card("Compare two versions"), ui.row().classes("items-end gap-4"):
        before = ui.select(there, value=there[1], label="Before").classes("tt-mono w-56")
        after = ui.select(there, value=there[0], label="After").classes("tt-mono w-56")

        def go() -> None:
            if before.value == after.value:
                said.text = "Take two different versions."
                return
            ui.navigate.to(f"/data/{before.value}/to/{after.value}")

        ui.button("Compare", icon="difference", on_click=go).props("outline")
        said = text("span", "", "tt-muted").props('role="status"')
