"""Drift: where the watch over traffic stands, comparisons with plots, and what is normal now.

It calls workflows/feedback/drift.py and drift_watch.py; a comparison runs in a process of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from tutelage.web.operate import plots
from tutelage.web.operate.live import Live, steady
from tutelage.web.operate.sheet import sheet
from tutelage.web.operate.states import at
from tutelage.web.parts.layout import Action, card, chip, confirm, empty, heading, notice
from tutelage.web.parts.text import passage, text
from tutelage.web.parts.words import count, number, percent, when
from tutelage.web.view import OPERATE, Page, View
from tutelage.workflows.command import run_command
from tutelage.workflows.feedback import drift as work
from tutelage.workflows.feedback.drift_watch import standings

_EVERY_S = 15.0
_WAYS = ("operator", "admin")
_AGAINST = {
    "auto": "What is normal now",
    "training": "The training rows",
    "golden": "The test rows",
    "accepted": "The traffic accepted last",
    "before": "The requests before",
}

_NORMAL = "Normal is the traffic accepted last; where none was, the data set."
_KINDS = {"check": "comparison"}


class Drift:
    """One look at the watches and at comparisons, kept up to date."""

    def __init__(self, view: View) -> None:
        self.view = view

    async def draw(self) -> None:
        """Draw the page and begin to follow."""
        self.root = ui.element("div").style("display: contents")
        heading("Drift", note="Whether requests, answers and scores are what they were.")
        with card("The watch", classes="w-full"):
            text("p", "It reads every request once. However long it runs, false alarms stay rare.",
                 "tt-muted")  # fmt: skip
            self.watches = Live(self._watches)
        if self.view.can(*_WAYS):
            self._form()
        with card("Comparisons and alarms", classes="w-full"):
            self.past = Live(_past)
        await self.refresh()
        self.view.every(_EVERY_S, self.refresh)

    async def refresh(self) -> None:
        """Read what is new and show it."""
        self.watches.show(await self.view.call(standings, self.view.context))
        self.past.show(await self.view.call(work.history, self.view.context, limit=50))

    def _watches(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            empty("No request was logged yet, so there is nothing to watch.", "tutelage up")
        for row in rows:
            with ui.row().classes("items-center gap-2"):
                state = ("moved", "bad") if row["moved"] else ("as before", "good")
                if not row["looked_at"]:
                    state = ("nothing looked at yet", "idle")
                chip(state[0], state[1])  # type: ignore[arg-type]
                text("strong", row["deployment"])
                if row["looked_at"]:
                    said = f"{count(row['looked_at'], 'request')} looked at"
                    text("span", said, "tt-muted")
            if row["reference"]:
                text("p", f"Held against {row['reference']}", "tt-muted")
            if row["alarm"]:
                self._alarm(row)
            series = [one for one in row["series"] if one["looks"]]
            if series:
                cells = [[one["series"], number(one["looks"]), f"{one['p']:.2g}"]
                         for one in series]  # fmt: skip
                sheet(("series", "looks", "p"), cells, name=f"the watch of {row['deployment']}")

    def _alarm(self, row: dict[str, Any]) -> None:
        notice(row["alarm"]["sentence"], "bad")
        with ui.row().classes("items-center gap-2"):
            ui.link("What moved", f"/drift/{row['alarm']['id']}")
            if self.view.can(*_WAYS):
                press = steady(self.root, partial(self.accept, row["deployment"]))
                ui.button("This is normal now", icon="check", on_click=press).props("outline")

    async def accept(self, deployment: str) -> None:
        """Ask, then make recent traffic the normal one."""
        self.view.require(*_WAYS)
        question = (
            f"Make the recent traffic of {deployment} the normal one? The alarm ends, and the "
            "watch begins anew from it. If the model should learn the new traffic, label it first."
        )
        if not await confirm(question, yes="This is normal now"):
            return
        told = await self.view.attempt(
            work.accept, self.view.context, deployment=deployment, author=self.view.user.name
        )
        if told is not None:
            self.view.audit("drift.accept", deployment=deployment)
            self.view.tell(f"{count(told['rows'], 'request')} are the normal ones now", "good")
        await self.refresh()

    def _form(self) -> None:
        with card("Compare now", classes="w-full"):
            text("p", _NORMAL, "tt-muted")
            form = ui.row().classes("items-center gap-4")
        with form:
            against = ui.select(_AGAINST, value="auto", label="With").classes("w-96")
            last = ui.number("Newest requests", value=1000, min=50, precision=0).classes("w-40")
            button = ui.button("Compare", icon="compare_arrows")
            normal = ui.button("Accept recent traffic as normal", icon="check")
            normal.props("outline").on_click(partial(self.accept, self.view.context.config.name))
            busy = ui.spinner(size="sm")
            busy.visible = False

            async def press() -> None:
                self.view.require(*_WAYS)
                button.set_enabled(False)
                busy.visible = True
                found = await self.view.attempt(
                    run_command, self.view.context, "drift", "check", "--against", against.value,
                    "--last", str(int(last.value or 1000)),
                )  # fmt: skip
                busy.visible = False
                button.set_enabled(True)
                if found is not None:
                    self.view.audit("drift.check", against=against.value)
                    self.view.tell(found["sentence"], "warn" if found["moved"] else "info")
                    await self.refresh()

            button.on_click(press)


def _past(rows: list[dict[str, Any]]) -> None:
    if not rows:
        empty("Nothing was compared yet.", "tutelage drift check")
        return
    cells = [
        [
            partial(ui.link, when(at(row["at"])), f"/drift/{quote(row['id'], safe='')}"),
            row["deployment"],
            _KINDS.get(row["kind"], row["kind"]),
            partial(chip, *(("moved", "bad") if row["moved"] else ("as before", "good"))),
            row["sentence"],
        ]
        for row in rows
    ]
    headers = ("when", "deployment", "kind", "verdict", "what")
    sheet(headers, cells, name="comparisons and alarms, newest first")


async def show(view: View) -> None:
    """Draw the watch and the comparisons."""
    await Drift(view).draw()


async def show_one(view: View, report: str) -> None:
    """Draw one comparison with its plots."""
    data = await view.call(work.show, view.context, report)
    found = data["report"]
    heading(
        "Alarm" if data["kind"] == "alarm" else "Comparison",
        Action("All comparisons", "/drift", "arrow_back"),
        note=f"{data['deployment']}, {when(at(data['at']))}",
    )
    notice(found["sentence"], "bad" if data["moved"] else "good")
    told = f"{found['recent']['what']}, against {found['reference']['what']}"
    text("p", told, "tt-muted")
    parts = found["parts"]
    _topics(parts, found.get("level", 0.01))
    _labels(parts, found.get("level", 0.01))
    _lengths(parts)
    with card("Every test", classes="w-full"):
        _parts(parts)
    _examples(parts)


def _topics(parts: list[dict[str, Any]], level: float) -> None:
    drawn = [part for part in parts if part["figures"].get("topics")]
    topics = [one for part in drawn for one in part["figures"]["topics"]]
    rows = [(", ".join(one["about"]) or "none of these", one["reference"], one["recent"])
            for one in topics]  # fmt: skip
    _pairs("What is asked about", "Shares of topics, before and now", rows,
           _still(drawn, level, "request"))  # fmt: skip


def _labels(parts: list[dict[str, Any]], level: float) -> None:
    drawn = [part for part in parts
             if part["segment"] is None and part["figures"].get("labels")]  # fmt: skip
    labels = [one for part in drawn for one in part["figures"]["labels"]]
    rows = [(str(one["label"]), one["reference"], one["recent"]) for one in labels]
    _pairs("Labels of answers", "Shares of labels, before and now", rows,
           _still(drawn, level, "answer"))  # fmt: skip


def _still(parts: list[dict[str, Any]], level: float, what: str) -> str:
    """Return why what is drawn counts as before; nothing where it moved."""
    if not parts or any(part["moved"] for part in parts):
        return ""
    fewest = min(int(part["recent"]) for part in parts)
    if all(part["corrected"] >= level for part in parts):
        return f" It counts as before: in {count(fewest, what)}, such differences can be chance."
    return " It counts as before: the differences are too small to matter."


def _pairs(title: str, name: str, rows: list[tuple[str, float, float]], why: str) -> None:
    if not rows:
        return
    most = max(rows, key=lambda row: abs(row[2] - row[1]))
    says = f"Most moved: {most[0]}, {percent(most[1])} before, {percent(most[2])} now.{why}"
    with card(title, classes="w-full"):
        plots.Plot(name, f"{6 + 2 * len(rows)}rem").show(plots.pairs(rows), says)
        cells = [[row[0], percent(row[1]), percent(row[2])] for row in rows]
        sheet(("what", "before", "now"), cells, name=name)


def _lengths(parts: list[dict[str, Any]]) -> None:
    found = [part for part in parts if "quantiles" in part["figures"] and part["segment"] is None]
    if not found:
        return
    cells = []
    for part in found:
        for side, word in (("reference", "before"), ("recent", "now")):
            low, _, middle, _, high = part["figures"][side]
            cells.append([f"{part['name']}, {word}", number(middle, 0),
                          f"{low:,.0f} to {high:,.0f}"])  # fmt: skip
    with card("Lengths in characters", classes="w-full"):
        sheet(("length", "median", "80 % of them"), cells, name="lengths before and now")


def _parts(parts: list[dict[str, Any]]) -> None:
    cells = [
        [
            part["name"] + (f" ({part['segment']})" if part["segment"] else ""),
            partial(chip, *(("moved", "bad") if part["moved"] else ("as before", "good"))),
            part["sentence"] or "–",
            f"{part['corrected']:.2g}",
            f"{part['reference']:,} and {part['recent']:,}",
        ]
        for part in parts
    ]
    headers = ("what", "verdict", "in words", "p, corrected", "compared")
    sheet(headers, cells, name="tests of this comparison")


def _examples(parts: list[dict[str, Any]]) -> None:
    shown = {
        one["record"]: one for part in parts if part["moved"] for one in part["examples"]
        if one.get("text")
    }  # fmt: skip
    if not shown:
        return
    with card("Requests that show it", classes="w-full"):
        for record, one in list(shown.items())[:12]:
            passage(one["text"])
            if one["where"] == "recent":
                ui.link("The whole answer", f"/traffic/{quote(record, safe='')}")


PAGES = (
    Page("/drift", "Drift", show, OPERATE, "Operate", "trending_up", "f"),
    Page("/drift/{report}", "Comparison", show_one, OPERATE),
)
