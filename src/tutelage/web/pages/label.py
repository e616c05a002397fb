"""Where experts label: the next item with the reason why it is asked, and everything by key."""

from __future__ import annotations

from urllib.parse import quote

from nicegui import ui

from tutelage.web.label import keys
from tutelage.web.label.desk import LABELLERS, Desk
from tutelage.web.label.give import GIVERS, GiveForm, given_out
from tutelage.web.label.item import ItemPart
from tutelage.web.label.looks import looks
from tutelage.web.label.side import SidePart
from tutelage.web.parts.layout import Action, card, empty, heading
from tutelage.web.parts.table import Table
from tutelage.web.teach.looks import looks as teach_looks
from tutelage.web.view import TEACH, Page, View
from tutelage.workflows.data.experts_people import annotators, guideline
from tutelage.workflows.data.experts_queue import join

_EVERY_S = 60.0  # how often a lease is renewed and the queue counted


class _Screen:
    """Draws the desk's item and what stands beside it."""

    def __init__(self, middle: ItemPart, side: SidePart) -> None:
        self._middle, self._side = middle, side

    def item(self) -> None:
        self._middle.draw()

    def beside(self) -> None:
        self._side.draw()

    def progress(self) -> None:
        self._side.draw_progress()


async def show(view: View) -> None:
    """Draw the desk of whoever looks."""
    looks()
    teach_looks()
    give = [Action("Give items out", "/label/give", "playlist_add")] if view.can(*GIVERS) else []
    heading("Label", *give)
    if not view.can(*LABELLERS):
        empty("Labelling needs the role expert. You can give items out and see how far they are.",
              action=Action("Items that were given out", "/label/give"))  # fmt: skip
        return
    name = await _name(view)
    if not view.site.accounts:
        await _who(view, name)
    found = await view.call(guideline, view.context)
    desk = Desk(view, name)
    with ui.element("div").classes("tt-desk"):
        middle = ItemPart(desk)
        side = SidePart(desk, found)
    desk.screen = _Screen(middle, side)
    view.keys({keys.GUIDE: ("Show or hide the guideline", side.toggle_guide)})
    await desk.begin(view.request.query_params.get("item"))

    async def minute() -> None:
        await desk.stay()
        await desk.count()

    view.every(_EVERY_S, minute)


async def show_given(view: View) -> None:
    """Draw what was given out, and the form to give more."""
    heading("Items given out", Action("Label", "/label", "label"),
            note="Who answers what. Each item is asked of as many people as wanted, "
            "and nobody gets one twice.")  # fmt: skip
    people = [one["name"] for one in await view.call(annotators, view.context) if one["active"]]
    drawn: list[Table] = []

    async def after() -> None:
        await drawn[0].load()

    if view.can(*GIVERS):
        GiveForm(view, people, after)
    with card("Given out before"):
        drawn.append(await given_out(view))
    view.every(15, after)


async def _name(view: View) -> str:
    """Return whose answers these are: the person's own, or where nobody signs in a chosen one."""
    wanted = None if view.site.accounts else view.request.query_params.get("as")
    return await view.call(join, view.context, wanted or view.user.name)


async def _who(view: View, name: str) -> None:
    people = [one["name"] for one in await view.call(annotators, view.context) if one["active"]]

    def chosen() -> None:
        ui.navigate.to(f"/label?as={quote(str(who.value), safe='')}")

    who = ui.select(people, value=name, label="You label as", on_change=chosen)
    who.classes("w-60 self-end").props("options-dense")


PAGES = (
    Page("/label", "Label", show, roles=TEACH, group="Teach", icon="label", key="l"),
    Page("/label/give", "Items given out", show_given, roles=TEACH),
)
