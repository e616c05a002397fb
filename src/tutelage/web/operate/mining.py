"""What production says is worth a label: one look's rows with their reasons, and who gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nicegui import ui

from tutelage.web.operate.live import steady
from tutelage.web.operate.sheet import sheet
from tutelage.web.operate.states import at, words
from tutelage.web.parts.layout import Action, card, chip, empty, heading
from tutelage.web.parts.text import text
from tutelage.web.parts.words import count, number, percent, short, when
from tutelage.web.view import View
from tutelage.workflows.command import run_command
from tutelage.workflows.data.experts_people import annotators

if TYPE_CHECKING:
    from tutelage.feedback.mining.mined import Mined, MinedRow

_WAYS = ("operator", "admin")
_PAGE = 25


class Mining:
    """One look at what is worth a label."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.start = 0

    async def draw(self) -> None:
        """Draw the page."""
        self.root = ui.element("div").style("display: contents")
        heading(
            "What to label", Action("Traffic", "/traffic", "arrow_back"),
            note="Failures, low scores, disagreement, doubt and what is new, ranked.",
        )  # fmt: skip
        if self.view.can(*_WAYS):
            await self._form()
        self.place = ui.column().classes("w-full")
        with card("Looks before", classes="w-full"):
            self.past = ui.column().classes("w-full")
        await self.refresh()

    async def _form(self) -> None:
        people = await self.view.call(annotators, self.view.context)
        names = [row["name"] for row in people if row["active"]]
        with card("New look", classes="w-full"), ui.row().classes("items-center gap-4"):
            rows = ui.number("Rows wanted", value=50, min=1, max=1000, precision=0).classes("w-36")
            button = ui.button("Look at production", icon="troubleshoot")
            busy = ui.spinner(size="sm")
            busy.visible = False

            async def look() -> None:
                self.view.require(*_WAYS)
                button.set_enabled(False)
                busy.visible = True
                budget = str(int(rows.value or 50))
                done = await self.view.attempt(
                    run_command, self.view.context, "mine", "run", "--budget", budget
                )
                busy.visible = False
                button.set_enabled(True)
                if done is not None:
                    self.view.audit("mining.look", rows=budget)
                    self.start = 0
                    await self.refresh()

            button.on_click(look)
        if not names:
            empty("Nobody labels yet.", "tutelage data label people --add NAME")
        self.names = names

    async def refresh(self) -> None:
        """Read and show the newest look."""
        from tutelage.workflows.feedback.mine_queue import looks, show

        past = await self.view.call(looks, self.view.context)
        self.past.clear()
        with self.past:
            _past(past)
        self.place.clear()
        if not past:
            with self.place:
                empty("Nothing was looked at yet.", "tutelage mine run")
            return
        found = await self.view.call(show, self.view.context)
        with self.place:
            self._look(found)

    def _look(self, found: Mined) -> None:
        with card("The newest look", classes="w-full"):
            text(
                "p",
                f"{number(found.wanted)} of {count(found.texts, 'different text')} in "
                f"{count(found.records, 'request')} have a reason.",
            )
            if found.batch:
                with ui.row():
                    chip("given out to label", "good")
            elif self.view.can(*_WAYS):
                self._assign(found)
            rows = found.rows[self.start : self.start + _PAGE]
            cells = [_row(row) for row in rows]
            headers = ("rank", "why", "question", "answer", "asked", "use")
            if cells:
                sheet(headers, cells, name="rows worth a label, the most wanted first")
            self._pager(len(found.rows))
        if found.clusters:
            with card("What lies together", classes="w-full"):
                _clusters(found)

    def _pager(self, total: int) -> None:
        async def turn(by: int) -> None:
            self.start = min(max(0, self.start + by), max(0, total - 1))
            await self.refresh()

        if total > _PAGE:
            with ui.row().classes("items-center gap-2"):
                back = ui.button("Before", on_click=lambda: turn(-_PAGE)).props("outline")
                back.set_enabled(self.start > 0)
                last = min(total, self.start + _PAGE)
                text("span", f"{self.start + 1}–{last} of {total:,}", "tt-muted")
                on = ui.button("More", on_click=lambda: turn(_PAGE)).props("outline")
                on.set_enabled(last < total)

    def _assign(self, found: Mined) -> None:
        if not self.names:
            return
        with ui.row().classes("items-center gap-4"):
            people = ui.select(
                self.names, value=list(self.names), label="Who labels", multiple=True
            ).props("use-chips")
            people.classes("min-w-64")

            async def give() -> None:
                from tutelage.workflows.feedback.mine_queue import give_out

                self.view.require(*_WAYS)
                chosen = tuple(people.value or ())
                if not chosen:
                    self.view.tell("Choose who labels.", "warn")
                    return
                told = await self.view.attempt(
                    give_out, self.view.context, found.run, chosen, shared=len(chosen) > 1
                )
                if told is not None:
                    self.view.audit("mining.assign", run=found.run, people=", ".join(chosen))
                    self.view.tell(f"{count(told['items'], 'row')} wait in the label queue", "good")
                await self.refresh()

            ui.button("Send to label", icon="label", on_click=steady(self.root, give))


def _row(row: MinedRow) -> list[Any]:
    def why() -> None:
        with ui.column().classes("gap-1"):
            for reason in row.reasons:
                with ui.row().classes("items-center gap-2 no-wrap"):
                    chip(words(reason.kind), "warn" if reason.kind == "failure" else "idle")
                    text("span", reason.words)

    def question() -> None:
        shown = short(row.text, 160) or "deleted since"
        ui.link(shown, f"/traffic/{quote(row.record, safe='')}")

    def answer() -> None:
        text("div", short(row.answer, 100))
        if row.times > 1:
            text("div", f"one of {row.times:,} answers", "tt-muted text-sm")

    use = "may be trained on" if row.split == "train" else "judges models"
    return [str(row.rank), why, question, answer, count(row.times, "time"), use]


def _clusters(found: Mined) -> None:
    rows = [
        [
            one.name, number(one.texts), number(one.requests), percent(one.share),
            percent(one.score), short("; ".join(one.examples), 160),
        ]
        for one in found.clusters
    ]  # fmt: skip
    headers = ("about", "texts", "requests", "of all", "likely wrong", "such as")
    sheet(headers, rows, name="clusters of rows worth a label")


def _past(rows: list[dict[str, Any]]) -> None:
    if not rows:
        text("p", "None yet.", "tt-muted")
        return
    cells = [
        [when(at(row["at"])), number(row["records"]), number(row["rows"]), row["batch"] or "–",
         number(row["answered"])]
        for row in rows[:20]
    ]  # fmt: skip
    headers = ("when", "requests read", "rows", "batch", "answered")
    sheet(headers, cells, name="looks at production")
