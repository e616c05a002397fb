"""Write a new version of the prompt: an editor that keeps every change, and the word diff below."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from tutelage.web.parts import diff, layout
from tutelage.web.parts.editor import Draft, draft_editor, restored
from tutelage.web.parts.text import text
from tutelage.web.view import View
from tutelage.workflows.release import prompt

_ITEM = "prompt:new"


class Writing:
    """The editor of a new version, compared with `base`; `begin` is a text to start from."""

    def __init__(self, view: View, base: str, told: str, begin: str | None = None) -> None:
        self._view, self._base, self._told, self._begin = view, base, told, begin
        self._draft: Draft

    async def show(self) -> None:
        """Draw the editor with what was typed before, and what changes by it."""
        typed = await restored(self._view, _ITEM, self._base)
        free = not typed.strip() or typed.strip() == self._base.strip()
        value = self._begin if self._begin is not None and free else typed
        with layout.card("Write a version"):
            if self._begin is not None and typed.strip() != self._begin.strip() and not free:
                self._offer()
            self._draft = draft_editor(
                self._view, item=_ITEM, value=value, label="Prompt", on_change=self._changed, rows=8
            )
            self._note = ui.input("Why").classes("w-full")
            with ui.row().classes("items-center gap-3"):
                ui.button("Keep as a draft", icon="save", on_click=self.keep)
                again = ui.button("Start again from the prompt in force", on_click=self._again)
                again.props("flat")
            text("h3", f"Changes to {self._told}")
            self._said = text("p", "", "tt-muted")
            self._box = ui.element("div")
            self._changed(value)

    def _offer(self) -> None:
        """Say that a text of this person stands in the editor in place of the one asked for."""
        with ui.row().classes("items-center gap-3"):
            layout.notice("Here is what you were writing. It is not kept as a draft yet.")
            begin = self._begin or ""
            ui.button("Replace it", on_click=lambda: self._replace(begin)).props("flat")

    async def _replace(self, value: str) -> None:
        """Put another text into the editor; what stood there is gone only if the person agrees."""
        mine = self._draft.value.strip()
        if mine and mine not in (self._base.strip(), value.strip()):
            question = "The editor holds a text that is no version yet. Replace it?"
            if not await layout.confirm(question, yes="Replace it"):
                return
        self._draft.element.set_value(value)

    async def keep(self) -> None:
        """Keep what stands in the editor as a draft and go there."""
        view = self._view
        view.require("engineer")
        await self._draft.flush()
        row = await view.attempt(
            prompt.draft, view.context, self._draft.value, by=view.user.name, note=self._note.value
        )
        if row is None:
            return
        if not row["new"]:
            view.tell(f"This text is version {row['number']} already.", "warn")
            return
        view.audit("prompt.drafted", version=str(row["number"]))
        await self._draft.forget()
        ui.navigate.to(f"/prompts/{row['number']}")

    async def _again(self) -> None:
        await self._replace(self._base)

    def _changed(self, value: Any) -> None:
        self._said.set_text(diff.summary(self._base, str(value)).capitalize() + ".")
        self._box.clear()
        with self._box:
            if str(value) != self._base:
                diff.word_diff(self._base, str(value))
