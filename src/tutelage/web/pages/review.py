"""Items on which people disagree, side by side, for a third person to decide. No names at first."""

from __future__ import annotations

from functools import partial

from nicegui import ui

from tutelage.web.parts import words
from tutelage.web.parts.layout import Action, heading
from tutelage.web.parts.text import text
from tutelage.web.teach.decide import Decision
from tutelage.web.teach.looks import looks
from tutelage.web.view import TEACH, Page, View
from tutelage.workflows.data.experts_decide import DecisionQueue, Waiting, queue_of

_SHOWN = 12  # items of the list


class _Desk:
    """The list of what waits at the left, the item at the right."""

    def __init__(self, view: View, queue: DecisionQueue) -> None:
        self._view, self._queue = view, queue
        self._start = 0
        with ui.element("div").classes("tt-review w-full"):
            with ui.element("section").classes("tt-card").props('aria-label="What waits"'):
                self._own = ui.switch("Also what I answered myself", on_change=self._switched)
                self._names = ui.switch("Show who said what", on_change=self._named)
                self._list = ui.column().classes("w-full gap-1")
            with ui.element("div").classes("min-w-0"):
                self._one = Decision(view, queue, self.draw)

    async def begin(self, item: str | None) -> None:
        """Open an item, or the first that waits."""
        wanted = item or await self._view.call(self._queue.take, self._view.user.name)
        await self._one.open(wanted)
        await self.draw()

    async def draw(self) -> None:
        """Draw the list as it is now."""
        user, own = self._view.user.name, self._one.own
        waiting = await self._view.call(self._queue.waiting, user, own=own)
        whole, mine = await self._view.call(self._queue.counts, user)
        if self._start >= len(waiting):
            self._start = 0
        rows = await self._view.call(
            partial(self._queue.page, user, own=own, start=self._start, count=_SHOWN)
        )
        self._names.set_value(self._one.names)
        self._list.clear()
        with self._list:
            left = words.count(len(waiting), "item waits", "items wait")
            text("p", f"{left} for you").props('role="status"')
            if mine and not own:
                text("p", f"{mine:,} more that you answered yourself", "tt-muted")
            if whole - mine - len(waiting) > 0 and not own:
                held = whole - mine - len(waiting)
                text("p", f"{held:,} more that others have open", "tt-muted")
            for one in rows:
                self._entry(one)
            if len(waiting) > _SHOWN:
                with ui.row().classes("gap-2"):
                    self._turn("chevron_left", "Earlier items", -_SHOWN, self._start > 0)
                    last = self._start + _SHOWN >= len(waiting)
                    self._turn("chevron_right", "Later items", _SHOWN, not last)

    def _entry(self, one: Waiting) -> None:
        here = self._one.case is not None and self._one.case.item == one.item
        with ui.element("button").props('type="button"').classes("tt-queue-entry") as entry:
            if here:
                entry.props["aria-current"] = "true"
            text("div", words.short(one.text, 70) or "(empty)")
            text("div", _said(one), "tt-muted")
        entry.on("click", partial(self._open, one.item))

    def _turn(self, icon: str, name: str, by: int, possible: bool) -> None:
        async def go() -> None:
            self._start = max(0, self._start + by)
            await self.draw()

        made = ui.button(icon=icon, on_click=go).props("flat dense round")
        made.props["aria-label"] = name
        made.set_enabled(possible)

    async def _open(self, item: str) -> None:
        await self._one.leave()
        await self._one.open(item)
        await self.draw()

    async def _switched(self) -> None:
        self._one.own = bool(self._own.value)
        if self._one.case is None:
            await self.begin(None)
        await self.draw()

    async def _named(self) -> None:
        if bool(self._names.value) != self._one.names:
            await self._one.toggle_names()


def _said(one: Waiting) -> str:
    """Return what people said in a few words."""
    if one.state == "unsure":
        return "Everybody was unsure"
    if one.state == "skipped":
        return "Everybody passed it by"
    said = " · ".join(f"{words.short(value, 24)} {times}×" for value, times in one.said[:3])
    return said + (" · …" if len(one.said) > 3 else "")


async def show(view: View) -> None:
    """Draw the page."""
    looks()
    heading(
        "Decide disagreements",
        Action("Agreement", "/agreement", "groups"),
        Action("Guideline", "/guidelines", "menu_book"),
        note="What two people answered differently. Your decision is the item's answer.",
    )
    desk = _Desk(view, queue_of(view.context))
    await desk.begin(view.request.query_params.get("item"))
    view.every(15, desk.draw)


PAGES = (Page("/review", "Decide", show, roles=TEACH, group="Teach", icon="gavel", key="v"),)
