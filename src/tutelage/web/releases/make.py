"""Make the release of an evaluated adapter from the page; refused as the command refuses it."""

from __future__ import annotations

from urllib.parse import quote

from nicegui import ui

from tutelage.web.parts import layout
from tutelage.web.view import View
from tutelage.workflows.release import release


async def make(view: View, adapter: str) -> None:
    """Ask, make the release and go there."""
    view.require("engineer")
    question = (
        f"Release the adapter {adapter}? The release keeps the prompt in force, the decoding and "
        "this evidence. It serves nobody before it is rolled out."
    )
    if not await layout.confirm(question, yes="Release it"):
        return
    view.require("engineer")
    made = await view.attempt(release.create, view.context, adapter)
    if made is None:
        return
    name = str(made.artifact.meta["name"])
    view.audit("release.created", release=name, adapter=adapter)
    ui.navigate.to(f"/releases/{quote(name, safe='')}")
