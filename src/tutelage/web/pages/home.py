"""The first page: what needs this person now, by role, and the next command of an empty project."""

from __future__ import annotations

from tutelage.web.parts.layout import heading
from tutelage.web.view import Page, View


async def show(view: View) -> None:
    """Draw what waits."""
    heading("What needs you now")


PAGES = (Page("/", "Home", show, icon="home"),)
