"""Asks which words are an identifier, and of what kind. The marked words stand there already."""

from __future__ import annotations

from nicegui import ui

from tutelage.data.privacy.kinds import KINDS
from tutelage.web.parts.text import text
from tutelage.web.view import View
from tutelage.workflows.data.experts_redact import kind_of

_MARKED = """
const chosen = window.getSelection();
const box = document.querySelector('.tt-item');
const inside = box && chosen.rangeCount && box.contains(chosen.anchorNode)
  && box.contains(chosen.focusNode);
return inside ? chosen.toString() : '';
"""


async def ask_to_hide(view: View) -> tuple[str, str] | None:
    """Return the words to hide and their kind, or None if the person thought better of it."""
    marked = await _marked()
    kind = await view.call(kind_of, view.context, marked) if marked else "name"
    kinds = {name: one.title[0].upper() + one.title[1:] for name, one in KINDS.items()}
    with ui.dialog() as dialog, ui.card().classes("tt-card tt-question"):
        dialog.props["aria-label"] = "Hide an identifier"
        text("h2", "Hide an identifier")
        text("p", "The words are replaced in this item, its drafts and its row.", "tt-muted")
        said = ui.input("Words to hide", value=marked).classes("w-full").props("autofocus")
        chosen = ui.select(kinds, value=kind, label="What they are").classes("w-full")

        def hide() -> None:
            dialog.submit((str(said.value or ""), str(chosen.value)))

        said.on("keydown.enter", hide)
        with ui.row().classes("tt-actions"):
            ui.button("Cancel", on_click=lambda: dialog.submit(None)).props("flat")
            ui.button("Hide", on_click=hide)
    answer = await dialog
    dialog.delete()
    return answer if isinstance(answer, tuple) else None


async def _marked() -> str:
    """Return the words that are marked in the item; none where the browser does not say."""
    try:
        return str(await ui.run_javascript(_MARKED, timeout=3.0) or "").strip()
    except TimeoutError:  # the person writes the words instead
        return ""
