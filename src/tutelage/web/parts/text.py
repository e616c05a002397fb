"""Text in an element of one's choice. Always as text, never as HTML."""

from __future__ import annotations

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement


def text(tag: str, content: object, classes: str = "") -> TextElement:
    """Add `<tag>` with `content` as its text; tt-text keeps line breaks."""
    made = TextElement(tag=tag, text=str(content))
    return made.classes(classes) if classes else made


def hidden(content: str) -> TextElement:
    """Add text that only a screen reader reads."""
    return text("span", content, "tt-hidden")


def passage(content: object, classes: str = "") -> ui.element:
    """Add a text of a model, a data set or a person: its line breaks and spaces are kept."""
    return text("div", content, f"tt-passage {classes}".strip())
