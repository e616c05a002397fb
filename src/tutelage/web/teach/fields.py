"""What is still being typed when a key acts: the browser hands it over before the key is obeyed."""

from __future__ import annotations

from nicegui import ui

_PATIENCE_S = 5.0


async def finish_typing() -> None:
    """Leave the field somebody types in, so that its last words are here; wait for them."""
    try:
        await ui.run_javascript("document.activeElement?.blur()", timeout=_PATIENCE_S)
    except TimeoutError:  # the connection is slow; the browser keeps the words
        return
