"""An editor that loses nothing: each change is kept on the server, and in the browser until then.

The browser's half is in static/tutelage.js: it writes every change into localStorage, and brings
it back after a reload if the server never said that it has it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from nicegui import background_tasks, ui

from tutelage.core.errors import TutelageError
from tutelage.web.parts.text import text
from tutelage.web.view import View
from tutelage.workflows.people.kept import drop_text, keep_text, kept_text

_WAIT_MS = 300  # of quiet before a change goes to the server


class Draft:
    """One text that is being written. `element` is its text area, `value` what stands in it."""

    def __init__(self, view: View, item: str, save: Callable[[str], object]) -> None:
        self._view, self.item, self._save = view, item, save
        self._wanted: str | None = None
        self._kept: str | None = None
        self._saving: asyncio.Task[Any] | None = None
        self.element: ui.textarea
        self.mark: Any

    @property
    def value(self) -> str:
        """What stands in the editor."""
        return str(self.element.value or "")

    def changed(self) -> None:
        """Keep what stands there now; the newest text wins if it changes meanwhile."""
        self._wanted = self.value
        self.mark.set_text("Saving…")
        if self._saving is None or self._saving.done():
            with self.element:
                self._saving = background_tasks.create(self._keep(), name=f"keep {self.item}")

    async def flush(self) -> None:
        """Return when the server has what stands in the editor."""
        if self.value != self._kept:
            self.changed()
        if self._saving is not None:
            await asyncio.wait([self._saving])

    async def forget(self) -> None:
        """The text was handed in: drop what was kept of it, here and in the browser."""
        if self._saving is not None:
            await asyncio.wait([self._saving])
        self._wanted, self._kept = None, None
        await self._view.call(drop_text, self._view.context, self._view.user.name, self.item)
        self._run(f"tutelage.forget({json.dumps(self.item)})")

    async def _keep(self) -> None:
        while (wanted := self._wanted) is not None and wanted != self._kept:
            try:
                await self._view.call(self._save, wanted)
            except (TutelageError, OSError) as error:
                self.mark.set_text(f"Not saved, kept in this browser: {error}")
                return
            self._kept = wanted
            self._run(f"tutelage.saved({json.dumps(self.item)}, {fingerprint(wanted)})")
        self.mark.set_text("Saved")

    def _run(self, code: str) -> None:
        self.element.client.run_javascript(code)


def draft_editor(
    view: View,
    *,
    item: str,
    value: str,
    save: Callable[[str], object] | None = None,
    label: str = "Your text",
    on_change: Callable[[str], object] | None = None,
    rows: int = 6,
) -> Draft:
    """Add an editor for the text of `item` ("label:1f3a…"), which is kept as it is typed.

    `save(text)` runs in a thread; unset, the text is kept for the person under `item`, and
    `await restored(view, item, value)` gives it back. `on_change(text)` follows the typing.
    """
    keep = save or (lambda typed: keep_text(view.context, view.user.name, item, typed))
    draft = Draft(view, item, keep)

    def changed() -> None:
        draft.changed()
        if on_change is not None:
            on_change(draft.value)

    with ui.element("div").classes("tt-editor"):
        area = ui.textarea(label, value=value, on_change=changed)
        area.props(f"debounce={_WAIT_MS} autogrow").classes("w-full")
        area.props["rows"] = rows
        area.props["data-tt-draft"] = item
        draft.element = area
        draft.mark = text("span", "", "tt-saved").props('role="status"')
    return draft


async def restored(view: View, item: str, value: str) -> str:
    """Return what the person had typed for an item and not handed in, else `value`."""
    kept = await view.call(kept_text, view.context, view.user.name, item)
    return value if kept is None else kept.text


def fingerprint(text: str) -> int:
    """Return the number by which the browser knows a text again (FNV-1a, 32 bits, UTF-16)."""
    found = 0x811C9DC5
    for byte in text.encode("utf-16-le", "surrogatepass"):
        found = (found ^ byte) * 0x01000193 & 0xFFFFFFFF
    return found
