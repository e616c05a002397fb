"""One correction, and the requests like it: seen before anything changes, applied whole, undone.

What would happen to each request is said beside it. Held-out requests are never changed by this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

from nicegui import ui

from tutelage.web.parts import words
from tutelage.web.parts.diff import word_diff
from tutelage.web.parts.editor import Draft, draft_editor, restored
from tutelage.web.parts.layout import Action, button, card, chip, notice
from tutelage.web.parts.table import Chip, Column, Row, table
from tutelage.web.parts.text import passage, text
from tutelage.web.view import View
from tutelage.workflows.data.experts_answer import is_labelled, known_labels
from tutelage.workflows.feedback import feedback, mine_similar
from tutelage.workflows.feedback.mine_similar import Spread

_MAY = ("expert", "engineer", "admin")
_LOWEST, _USUAL = 0.5, 0.8  # cosines


class Correction:
    """The request that is corrected. `done` is called when something was changed."""

    def __init__(
        self, view: View, record: str, asked: str, answer: str, done: Callable[[], Awaitable[None]]
    ) -> None:
        self._view, self._record, self._done = view, record, done
        self._asked, self._answer = asked, answer
        self._draft: Draft | None = None
        self._pick: ui.select | None = None
        self._busy = False
        self._near: ui.number
        self._preview: ui.column

    async def show(self) -> None:
        """Draw the request, its answer, the editor, and what can be done with it."""
        labelled = is_labelled(self._view.context.config)
        labels = await self._view.call(known_labels, self._view.context) if labelled else []
        item = f"correct:{self._record}"
        with card("Correct this answer"):
            passage(self._asked)
            with ui.column().classes("w-full gap-0"):
                text("div", "What was answered", "tt-muted")
                passage(self._answer or "(nothing)")
            if labelled:
                self._pick = ui.select(labels, label="The right label", with_input=True)
                self._pick.classes("w-full max-w-md")
            else:
                value = await restored(self._view, item, self._answer)
                self._draft = draft_editor(
                    self._view, item=item, value=value, label="The right answer",
                    on_change=lambda new: self._changed(new),
                )  # fmt: skip
                self._changes = ui.element("div")
                self._changed(value)
            self._near = ui.number("How alike, from 0.5 to 1", value=_USUAL, min=_LOWEST, max=1,
                                   step=0.05).classes("w-48")  # fmt: skip
            with ui.row().classes("gap-2"):
                button(Action("Look for requests like it", self.look, "travel_explore", "main"))
                button(Action("Correct only this one", self.only_this, "done"))
            self._preview = ui.column().classes("w-full gap-3 items-stretch")

    async def look(self) -> None:
        """Show what would happen to the requests like this one. Nothing is changed."""
        right = await self._right()
        if right is None:
            return
        self._preview.clear()
        with self._preview, ui.row().classes("gap-2 items-center"):
            ui.spinner()
            text("p", "Comparing it with what was asked…", "tt-muted")
        near = float(self._near.value or _USUAL)
        found = await self._view.attempt(
            partial(mine_similar.similar, self._view.context, self._record, correction=right,
                    threshold=near)
        )  # fmt: skip
        self._preview.clear()
        if found is not None:
            with self._preview:
                await self._draw(found, right)

    async def only_this(self) -> None:
        """Keep the correction of this one answer."""
        right = await self._right()
        if right is not None and await self._keep(right):
            self._view.tell("Corrected", "good")
            await self._done()

    async def _draw(self, found: Spread, right: str) -> None:
        many = len(found.applies)
        said = words.count(many, "request", "requests")
        text("h3", f"{said} would get this answer too")
        for why, times in Counter(one.status for one in found.rows if one.status).most_common():
            text("p", f"{words.count(times, 'request')} left as they are: {why}.", "tt-muted")
        below = f"The nearest text that is not taken in has {found.nearest_below:.2f}."
        text("p", below, "tt-muted")
        if found.rows:
            await table(
                (
                    Column("text", "Asked", show=lambda row: words.short(row["text"], 140)),
                    Column("answer", "Answered", show=lambda row: words.short(row["answer"], 80)),
                    Column("cosine", "Alike", "number", sortable=True,
                           show=lambda row: f"{row['cosine']:.2f}"),
                    Column("status", "What happens", show=lambda row: Chip(
                        row["status"] or "gets the answer", "idle" if row["status"] else "good")),
                ),
                [vars(one) for one in found.rows], key="record", limit=10,
            )  # fmt: skip
        if many:
            action = Action(f"Correct this one and {many:,} like it",
                            partial(self._apply, found, right), "done_all", "main")  # fmt: skip
            with ui.row():
                button(action)
        else:
            notice("Nothing else is alike enough. Lower the number and look again.")

    async def _apply(self, found: Spread, right: str) -> None:
        self._view.require(*_MAY)
        if self._busy:
            return
        self._busy = True
        try:
            if not await self._keep(right):
                return
            spread = await self._view.attempt(
                mine_similar.apply, self._view.context, found, self._view.user.name
            )
        finally:
            self._busy = False
        if spread is not None:
            self._view.audit("mine.apply", batch=spread.batch or "", record=self._record)
            done = words.count(len(found.applies), "request")
            self._view.tell(f"{done} corrected. It can be undone below.", "good")
            await self._done()

    async def _keep(self, right: str) -> bool:
        self._view.require(*_MAY)
        body = {"record_id": self._record, "edit": right, "author": self._view.user.name}
        kept = await self._view.attempt(
            feedback.add, self._view.context, body, self._view.user.name
        )
        if kept is None:
            return False
        self._view.audit("feedback.edit", record=self._record)
        if self._draft is not None:
            await self._draft.forget()
        return True

    async def _right(self) -> str | None:
        """Return the right answer, or None after saying that it is missing."""
        if self._pick is not None:
            if self._pick.value:
                return str(self._pick.value)
            self._view.tell("Choose the right label first", "warn")
            return None
        if self._draft is not None:
            await self._draft.flush()
            if self._draft.value.strip():
                return self._draft.value
        self._view.tell("Write the right answer first", "warn")
        return None

    def _changed(self, new: str) -> None:
        self._changes.clear()
        with self._changes:
            text("div", "What changes", "tt-muted")
            word_diff(self._answer, new)


class Applied:
    """The corrections that were applied to many, newest first, each with its undo."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._box = ui.column().classes("w-full gap-2 items-stretch")

    async def draw(self) -> None:
        """Draw the list as it is now."""
        rows = await self._view.call(mine_similar.applied, self._view.context)
        self._box.clear()
        if not rows:
            return
        with self._box, card("Corrections that were applied to many"):
            await table(
                (
                    Column("at", "When", show=lambda row: row["at"][:16].replace("T", " ")),
                    Column("author", "By"),
                    Column("rows", "Requests", "number"),
                    Column("threshold", "Alike from", "number"),
                    Column("undone", "", show=self._undo),
                ),
                rows, key="batch", limit=8,
            )  # fmt: skip

    def _undo(self, row: Row) -> None:
        if row["undone"]:
            chip("undone", "idle")
            return
        made = button(Action("Undo", partial(self._take_back, str(row["batch"])), "undo"))
        made.props["aria-label"] = f"Undo the correction of {row['rows']} requests"

    async def _take_back(self, batch: str) -> None:
        self._view.require(*_MAY)
        removed = await self._view.attempt(mine_similar.undo, self._view.context, batch)
        if removed is not None:
            self._view.audit("mine.undo", batch=batch)
            back = words.count(removed, "correction")
            self._view.tell(f"{back} taken back; the first one stays", "good")
            await self.draw()
