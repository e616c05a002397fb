"""Gives items out from the page: to whom, from where, how many answers each.

A file that is brought along is read and not kept: its texts become items of the store.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePath
from typing import Any

from nicegui import events, ui

from tutelage.core.errors import DataError
from tutelage.web.parts import words
from tutelage.web.parts.layout import Action, button, card
from tutelage.web.parts.table import Column, Query, Rows, Table, table
from tutelage.web.parts.text import text
from tutelage.web.view import View
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_items import Order, assign
from tutelage.workflows.data.experts_people import add_annotators
from tutelage.workflows.data.experts_queue import Batch, batches_of

GIVERS = ("engineer", "admin")
_FORMS = "A file: .txt (one text per line), .csv, .tsv, .jsonl or .json"
_LARGEST = 20_000_000  # bytes of a file
_SOURCES = {
    "file": "Texts from a file",
    "random": "Rows of the dataset, at random",
    "production": "Requests that clients sent",
    "active": "What would teach most (requests and imports)",
    "disputed": "What people disagree about",
    "import": "What another tool brought",
}
_MINED = {"mined": "Requests worth a label"}  # given out where they are mined


class GiveForm:
    """The form. `after` is called when something was given out."""

    def __init__(self, view: View, people: list[str], after: Callable[[], Awaitable[None]]) -> None:
        self._view, self._after = view, after
        self._file: tuple[str, bytes] | None = None
        with card("Give items out"):
            self._people = ui.select(
                people, value=people, label="Who labels (type a name to add one)", multiple=True,
                new_value_mode="add-unique", with_input=True,
            ).classes("w-full").props("use-chips")  # fmt: skip
            self._source = ui.select(
                _SOURCES, value="file", label="Which items", on_change=self._choose
            ).classes("w-full")
            taken = ui.upload(
                auto_upload=True, max_files=1, max_file_size=_LARGEST, on_upload=self._took
            ).classes("hidden")  # its own button has no name; ours opens it
            self._bring = ui.button("Choose a file", icon="upload_file")
            self._bring.props("outline").classes("self-start")
            self._bring.on("click", js_handler=f"() => runMethod({taken.id}, 'pickFiles', [])")
            self._told = text("p", _FORMS, "tt-muted").props('role="status"')
            with ui.row().classes("w-full gap-4"):
                self._count = ui.number("Items at most (empty: all)", min=1, precision=0)
                self._overlap = ui.number("Answers per item", value=1, min=1, precision=0)
                for field in (self._count, self._overlap):
                    field.classes("grow")
            self._shared = ui.checkbox("Whoever is free takes the next item", value=True)
            with ui.row():
                button(Action("Give out", self.give, "playlist_add", "main"))

    async def give(self) -> None:
        """Give the items out as the form says."""
        self._view.require(*GIVERS)
        people = tuple(str(one) for one in self._people.value or ())
        done = await self._view.attempt(
            _give, self._view.context, self._file, people, self._wanted()
        )
        if done is None:
            return
        self._view.audit("label.assign", batch=str(done["batch"]), people=", ".join(people))
        items, answers = (words.count(done[key], key[:-1]) for key in ("items", "answers"))
        self._view.tell(f"{items} given out; {answers} are wanted", "good")
        await self._after()

    def _wanted(self) -> dict[str, Any]:
        return {
            "source": self._source.value,
            "count": int(self._count.value) if self._count.value else None,
            "overlap": int(self._overlap.value or 1),
            "shared": bool(self._shared.value),
        }

    def _choose(self) -> None:
        self._bring.set_visibility(self._source.value == "file")
        self._told.set_visibility(self._source.value == "file")

    async def _took(self, upload: events.UploadEventArguments) -> None:
        self._file = (PurePath(upload.file.name).name or "texts.txt", await upload.file.read())
        self._told.set_text(f"{self._file[0]} is here, {words.count(len(self._file[1]), 'byte')}")


async def given_out(view: View) -> Table:
    """Draw what was given out before, the newest first."""

    async def rows(query: Query) -> Rows:
        found, total = await view.call(
            batches_of, view.context, offset=query.offset, limit=query.limit
        )
        return Rows([_row(one) for one in found], total)

    columns = (
        Column("when", "Given out"),
        Column("source", "Which items"),
        Column("people", "To whom"),
        Column("overlap", "Answers each", "number"),
        Column("done", "Done", "number"),
        Column("busy", "Being answered", "number"),
        Column("open", "Awaited", "number"),
    )
    return await table(columns, rows, key="batch", nothing="Nothing was given out yet.")


def _row(one: Batch) -> dict[str, object]:
    return {
        "batch": one.batch,
        "when": words.ago(one.at),
        "source": {**_SOURCES, **_MINED}.get(one.source, one.source),
        "people": ", ".join(one.people),
        "overlap": one.overlap,
        "done": one.done,
        "busy": one.busy,
        "open": one.open,
    }


def _give(
    ctx: Context, file: tuple[str, bytes] | None, people: tuple[str, ...], wanted: dict[str, Any]
) -> dict[str, Any]:
    """Add who is new and give the items out; a file lies in a folder of its own meanwhile."""
    if not people:
        raise DataError("nobody is named", fix="Choose who labels, or type a name")
    add_annotators(ctx, people)
    if wanted["source"] != "file":
        return assign(ctx, Order(people, **wanted))
    if file is None:
        raise DataError("no file is here yet", fix="Bring one: .txt, .csv, .tsv, .jsonl or .json")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file[0]
        path.write_bytes(file[1])
        return assign(ctx, Order(people, file=path, **wanted))
