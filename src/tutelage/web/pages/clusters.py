"""Requests of production that belong together, and one correction for all that are alike."""

from __future__ import annotations

from functools import partial

from nicegui import ui

from tutelage.feedback.mining.mined import Cluster, Mined, MinedRow
from tutelage.web.parts import words
from tutelage.web.parts.layout import Action, button, card, chip, empty, figure, grid, heading
from tutelage.web.parts.text import passage, text
from tutelage.web.teach.looks import looks
from tutelage.web.teach.similar import Applied, Correction
from tutelage.web.view import TEACH, Page, View
from tutelage.workflows.feedback import mine_queue
from tutelage.workflows.feedback.mine import mine

_ROWS = 8  # requests of a cluster shown at once
_BUDGET = 200  # requests a look from here keeps
_MAY = ("expert", "engineer", "admin")
_KINDS = {
    "failure": "failed", "low_score": "scored low", "disagreement": "answered differently",
    "uncertainty": "uncertain", "novelty": "new", "random": "drawn at random",
    "held_out": "held out",
}  # fmt: skip


class _Desk:
    """Clusters at the left, the requests of one at the right, the correction above them."""

    def __init__(self, view: View, look: Mined, runs: list[dict[str, object]]) -> None:
        self._view, self._look = view, look
        self._name = look.clusters[0].name if look.clusters else ""
        self._start = 0
        with card(), grid("10rem"):
            figure(words.number(look.records), "requests looked at")
            figure(words.number(look.texts), "different texts")
            figure(words.number(look.wanted), "worth a look")
        if len(runs) > 1:
            options = {str(one["run"]): f"{str(one['at'])[:16].replace('T', ' ')}, "
                       f"{one['rows']} requests" for one in runs}  # fmt: skip
            pick = ui.select(options, value=look.run, label="Look of")
            pick.classes("w-72").on_value_change(
                lambda event: ui.navigate.to(f"/clusters?look={event.value}")
            )
        with ui.element("div").classes("tt-review w-full"):
            with ui.element("section").classes("tt-card").props('aria-label="Groups"'):
                self._list = ui.column().classes("w-full gap-1")
            with ui.column().classes("w-full gap-4 items-stretch min-w-0"):
                self._correct = ui.column().classes("w-full items-stretch")
                self._rows = ui.column().classes("w-full items-stretch")
        self._applied = Applied(view)

    async def draw(self) -> None:
        """Draw everything."""
        self._draw_list()
        self._draw_rows()
        await self._applied.draw()

    def _draw_list(self) -> None:
        self._list.clear()
        with self._list:
            for one in self._look.clusters:
                with ui.element("button").props('type="button"') as entry:
                    entry.classes("tt-queue-entry")
                    if one.name == self._name:
                        entry.props["aria-current"] = "true"
                    text("div", one.name)
                    text("div", _size(one), "tt-muted")
                entry.on("click", partial(self._choose, one.name))

    def _choose(self, name: str) -> None:
        self._name, self._start = name, 0
        self._correct.clear()
        self._draw_list()
        self._draw_rows()

    def _draw_rows(self) -> None:
        rows = [one for one in self._look.rows if one.cluster == self._name]
        shown = rows[self._start : self._start + _ROWS]
        self._rows.clear()
        with self._rows, card(self._name or "Requests"):
            own = next((one for one in self._look.clusters if one.name == self._name), None)
            if own is not None:
                text("p", _about(own, len(rows)), "tt-muted")
            for one in shown:
                self._row(one)
            if not shown:
                text("p", "No request of this group was kept with this look.", "tt-muted")
            if len(rows) > _ROWS:
                with ui.row().classes("tt-pager"):
                    last = min(self._start + _ROWS, len(rows))
                    text("span", f"{self._start + 1}–{last} of {len(rows):,}", "tt-muted")
                    self._turn("chevron_left", "Earlier requests", -_ROWS, self._start > 0)
                    self._turn("chevron_right", "Later requests", _ROWS, last < len(rows))

    def _row(self, one: MinedRow) -> None:
        with (
            ui.column()
            .classes("w-full gap-1")
            .style("border-top: 1px solid var(--tt-line); padding-top: 10px")
        ):
            passage(one.text or "(the text was deleted)")
            with ui.column().classes("w-full gap-0"):
                many = f", one of {one.times:,} answers" if one.times > 1 else ""
                text("div", f"Answered{many}", "tt-muted")
                passage(one.answer or "(nothing)")
            with ui.row().classes("gap-2 items-center"):
                if one.times > 1:
                    chip(f"asked {one.times:,} times", "info")
                if one.split != "train":
                    chip("held out: judged with, never trained on", "idle")
                for reason in one.reasons[:2]:
                    text("span", reason.words, "tt-muted")
            if one.text:
                with ui.row():
                    made = button(Action("Correct", partial(self._begin, one), "edit"))
                    made.props["aria-label"] = f"Correct the answer to {words.short(one.text, 60)}"

    async def _begin(self, one: MinedRow) -> None:
        self._correct.clear()
        with self._correct:
            part = Correction(self._view, one.record, one.text, one.answer, self._after)
            await part.show()
        ui.run_javascript("window.scrollTo({top: 0})")

    async def _after(self) -> None:
        self._correct.clear()
        await self._applied.draw()

    def _turn(self, icon: str, name: str, by: int, possible: bool) -> None:
        def go() -> None:
            self._start = max(0, self._start + by)
            self._draw_rows()

        made = ui.button(icon=icon, on_click=go).props("flat dense round")
        made.props["aria-label"] = name
        made.set_enabled(possible)


def _size(one: Cluster) -> str:
    return f"{words.count(one.requests, 'request')} · {words.percent(one.share, 0)} of these"


def _about(one: Cluster, kept: int) -> str:
    chance = words.percent(one.score, 0)
    texts = words.count(one.texts, "text")
    shown = f"{kept:,} of {texts} are shown" if kept < one.texts else texts
    said = f"{shown}; mean chance of a wrong answer {chance}."
    kinds = ", ".join(f"{many:,} {_KINDS.get(kind, kind)}" for kind, many in one.kinds.items())
    return f"{said} Of the texts: {kinds}." if kinds else said


async def show(view: View) -> None:
    """Draw the page."""
    looks()

    async def look_now() -> None:
        view.require(*_MAY)
        with waiting:
            waiting.clear()
            ui.spinner()
            text("p", "Looking at what was asked…", "tt-muted")
        found = await view.attempt(partial(mine, view.context, budget=_BUDGET))
        waiting.clear()
        if found is not None:
            view.audit("mine.run", run=found.run)
            ui.navigate.to("/clusters")

    again = Action("Look at production now", look_now, "travel_explore")
    heading(
        "Groups of requests", again,
        note="What clients ask that may be answered wrongly, in groups. Correct one, and see at "
        "once what else it would correct.",
    )  # fmt: skip
    waiting = ui.row().classes("gap-2 items-center")
    runs = await view.call(mine_queue.looks, view.context)
    if not runs:
        empty("Nobody has looked at production yet. Look at it with the button above, or type:",
              "tutelage mine run")  # fmt: skip
        await Applied(view).draw()
        return
    wanted = view.request.query_params.get("look")
    await _Desk(view, await view.call(mine_queue.show, view.context, wanted), runs).draw()


PAGES = (
    Page("/clusters", "Groups", show, roles=TEACH, group="Teach", icon="bubble_chart", key="c"),
)
