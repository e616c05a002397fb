"""Traffic: the newest answers with filters, and one answer whole with its feedback and lineage.

It calls workflows/feedback/records.py, feedback.py and release_lineage.py and decides nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from tutelage.web.operate.answer import Answer
from tutelage.web.operate.arms import ARMS
from tutelage.web.operate.mining import Mining
from tutelage.web.operate.sheet import sheet
from tutelage.web.operate.states import since
from tutelage.web.parts.layout import Action, chip, empty, heading
from tutelage.web.parts.text import text
from tutelage.web.parts.words import milliseconds, number, short
from tutelage.web.view import OPERATE, Page, View
from tutelage.workflows.feedback.records import WINDOW, Wanted, recent_records
from tutelage.workflows.release.deploy import all_deployments

_KINDS = {
    "all": "All answers",
    "failed": "Failed",
    "flagged": "Flagged by a check",
    "feedback": "With feedback",
    "corrected": "Corrected by a user",
    "canary": "Of a candidate",
}
_ALL = "All deployments"


class Traffic:
    """One look at the newest answers; older ones come page by page."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.kind, self.deployment = "all", _ALL
        self.places: list[str | None] = [None]  # where each page so far began

    async def draw(self) -> None:
        """Draw the page."""
        mining = Action("What to label", "/mining", "troubleshoot")
        heading("Traffic", mining, note="What clients asked, and what they were answered.")
        names = [row["name"] for row in await self.view.call(all_deployments, self.view.context)]
        with ui.row().classes("items-center gap-4"):
            self._choice(_KINDS, "kind", "Show")
            if len(names) > 1:
                self._choice([_ALL, *names], "deployment", "Deployment")
            again = ui.button("Newest", icon="refresh", on_click=self.newest).props("outline")
            again.props["aria-label"] = "Show the newest answers"
        self.table = ui.column().classes("w-full")
        await self.refresh()
        self.view.keys({
            "n": ("Newest answers", self.newest),
            "ArrowRight": ("Older answers", self.older),
            "ArrowLeft": ("Newer answers", self.newer),
        })  # fmt: skip

    def _choice(self, options: Any, name: str, label: str) -> None:
        async def chosen(event: Any) -> None:
            setattr(self, name, event.value)
            await self.newest()

        ui.select(options, value=getattr(self, name), label=label, on_change=chosen).classes("w-56")

    async def newest(self) -> None:
        """Go back to the first page."""
        self.places = [None]
        await self.refresh()

    async def older(self) -> None:
        """Go on to older answers."""
        if self.after is not None:
            self.places.append(self.after)
            await self.refresh()

    async def newer(self) -> None:
        """Go back by a page."""
        if len(self.places) > 1:
            self.places.pop()
            await self.refresh()

    async def refresh(self) -> None:
        """Read and show the page that is chosen."""
        deployment = None if self.deployment == _ALL else self.deployment
        found = await self.view.attempt(
            recent_records, self.view.context, Wanted(deployment, None, self.kind),
            before=self.places[-1],
        )  # fmt: skip
        self.after = found["next"] if found else None
        self.table.clear()
        if found is not None:
            with self.table:
                self._rows(found)

    def _rows(self, found: dict[str, Any]) -> None:
        if not found["records"]:
            if self.after is not None:
                text("p", f"None among {WINDOW:,} answers. Older ones may hold some.", "tt-muted")
            elif self.kind == "all":
                empty(
                    "No request was answered yet. Clients call the gateway as they would OpenAI.",
                    "tutelage up",
                )
            else:
                empty("There are none of this kind.")
        else:
            cells = [_cells(row) for row in found["records"]]
            headers = ("when", "question", "answer", "release", "took", "tokens", "said of it")
            sheet(headers, cells, name="answers, newest first")
        with ui.row().classes("gap-2"):
            back = ui.button("Newer", icon="chevron_left", on_click=self.newer).props("outline")
            back.set_enabled(len(self.places) > 1)
            on = ui.button("Older", icon="chevron_right", on_click=self.older).props("outline")
            on.set_enabled(self.after is not None)


def _cells(row: dict[str, Any]) -> list[Any]:
    return [
        partial(ui.link, since(row["at"]), f"/traffic/{quote(row['id'], safe='')}"),
        short(row["question"], 120),
        partial(_answer, row),
        f"{row['release']} ({ARMS.get(row['arm'], row['arm'])})",
        milliseconds(row["latency_ms"]),
        number(row["prompt_tokens"] + row["completion_tokens"]),
        ", ".join(f"{many} {kind}" for kind, many in row["said"].items()) or "–",
    ]


def _answer(row: dict[str, Any]) -> None:
    with ui.row().classes("items-center gap-2"):
        if row["status"] >= 400:
            chip(f"{row['status']}", "bad")
            text("span", short(row["error"] or "", 80))
        else:
            text("span", short(row["answer"], 120))
        for name in row["flags"]:
            chip(name, "warn")


async def show(view: View) -> None:
    """Draw the newest answers."""
    await Traffic(view).draw()


async def show_one(view: View, record: str) -> None:
    """Draw one answer."""
    await Answer(view, record).draw()


async def show_mining(view: View) -> None:
    """Draw what production says is worth a label."""
    await Mining(view).draw()


PAGES = (
    Page("/traffic", "Traffic", show, OPERATE, "Operate", "forum", "q"),
    Page("/traffic/{record}", "Answer", show_one, OPERATE),
    Page("/mining", "What to label", show_mining, OPERATE),
)
