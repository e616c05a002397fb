"""Turns of the loop: where one stands, what it waits for, its journal; decisions; the schedule.

It calls workflows/improve/improve.py and schedule.py. The work itself is a job of its own process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import ui

from tutelage.web.operate.live import Live, steady
from tutelage.web.operate.sheet import sheet
from tutelage.web.operate.states import TURN, at, prose, since, words
from tutelage.web.parts.editor import draft_editor, restored
from tutelage.web.parts.layout import card, chip, confirm, empty, facts, heading, notice
from tutelage.web.parts.text import text
from tutelage.web.parts.words import duration, when
from tutelage.web.view import OPERATE, Page, View
from tutelage.workflows import jobs
from tutelage.workflows.improve import improve as work
from tutelage.workflows.improve import schedule
from tutelage.workflows.improve.improve_turns import ENDED

_EVERY_S = 4.0
_WAYS = ("operator", "admin")
_WHY = "improve:why"
_NAMES = {
    "mine": "mine",
    "review": "review",
    "dataset": "dataset",
    "start": "start",
    "train": "train",
    "gate": "gate",
    "release": "release",
    "canary": "canary",
}


class Improve:
    """One look at the loop, kept up to date."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.turns: list[dict[str, Any]] = []

    async def draw(self) -> None:
        """Draw the page and begin to follow."""
        note = "Mine, review, new dataset, train, gate, release, canary: one turn of the loop."
        self.root = ui.element("div").style("display: contents")
        heading("Improve", note=note)
        self.kept = await restored(self.view, _WHY, "")
        with card("The newest turn", classes="w-full"):
            self.turn = Live(self._turn)
            self.levers = Live(self._levers)
        with card("Journal", classes="w-full"):
            self.journal = Live(_journal)
        with card("Turns before", classes="w-full"):
            self.past = Live(_past)
        with card("Schedule", classes="w-full"):
            self.schedule = Live(_schedule)
        await self.refresh()
        self.view.every(_EVERY_S, self.refresh)

    async def refresh(self) -> None:
        """Read what is new and show it."""
        ctx = self.view.context
        self.turns = await self.view.call(work.history, ctx)
        newest = await self.view.call(work.status, ctx) if self.turns else None
        self.turn.show(newest)
        keys = ("state", "waits", "turn", "asks")
        self.levers.show(tuple(newest[key] for key in keys) if newest else None)
        self.journal.show(newest["journal"] if newest else [])
        self.past.show(self.turns[1:])
        self.schedule.show(await self.view.call(schedule.show, ctx))

    def _turn(self, data: dict[str, Any] | None) -> None:
        if data is None:
            empty("No turn of the loop yet. It begins with production traffic and its feedback.")
            return
        _states(data)
        prose(data["sentence"])
        text("p", f"Begun {since(data['started_at'])}: {data['why']}", "tt-muted")
        if data["problem"]:
            notice(str(data["problem"]), "bad")

    def _levers(self, state: tuple[str, str | None, str, bool] | None) -> None:
        if not self.view.can(*_WAYS):
            return
        with ui.row().classes("items-center gap-2"):
            if state is None or state[0] in ENDED:
                self._lever("Begin a turn", "play_arrow", partial(self.run, "begin"))
                return
            if state[3]:
                with ui.element("div").classes("w-full"):
                    self.why = draft_editor(
                        self.view, item=_WHY, value=self.kept, label="Why (for the journal)", rows=2
                    )
                self._lever("Accept and go on", "check", partial(self.decide, True))
                self._lever("Reject", "close", partial(self.decide, False), "outline")
            name, icon = ("Check again", "refresh") if state[1] else ("Go on", "play_arrow")
            self._lever(name, icon, partial(self.run, "resume"), "outline")
            self._lever("Cancel the turn", "stop", self.cancel, "outline color=negative")

    def _lever(
        self, name: str, icon: str, work: Callable[[], Awaitable[object]], props: str = ""
    ) -> None:
        ui.button(name, icon=icon, on_click=steady(self.root, work)).props(props)

    async def run(self, verb: str) -> None:
        """Begin a turn or go on with it, in a job."""
        self.view.require(*_WAYS)
        arguments = ("resume",) if verb == "resume" else ()
        job = await self.view.attempt(
            jobs.start, self.view.context, "improve", by=self.view.user.name, arguments=arguments
        )
        if job is not None:
            self.view.audit(f"improve.{verb}", job=job)
            self.view.tell("The turn goes on by itself; this page follows it.", "good")
        await self.refresh()

    async def decide(self, accept: bool) -> None:
        """Keep the person's decision and go on with it."""
        self.view.require(*_WAYS)
        why = self.why.value.strip()
        told = await self.view.attempt(
            work.decide, self.view.context, accept, why=why, author=self.view.user.name
        )
        if told is not None:
            verb = "accept" if accept else "reject"
            self.view.audit(f"improve.{verb}", turn=told.id, why=why)
            self.kept = ""
            await self.why.forget()
            await self.run("resume")
        await self.refresh()

    async def cancel(self) -> None:
        """Ask, then give the turn up."""
        self.view.require(*_WAYS)
        question = "Give this turn up? Labels and datasets stay; a running rollout is left alone."
        if not await confirm(question, yes="Cancel the turn", danger=True):
            return
        told = await self.view.attempt(work.cancel, self.view.context, author=self.view.user.name)
        if told is not None:
            self.view.audit("improve.cancel", turn=told.id)
            self.view.tell("The turn is cancelled", "good")
        await self.refresh()


def _states(data: dict[str, Any]) -> None:
    states = list(data["states"])
    here = states.index(data["state"]) if data["state"] in states else len(states)
    with ui.element("ol").classes("flex flex-wrap items-center gap-2 list-none p-0 m-0"):
        for place, name in enumerate(states):
            with ui.element("li").classes("flex") as item:
                if place == here:
                    item.props("aria-current=step")
                chip(_NAMES.get(name, name),
                     "good" if place < here else "info" if place == here else "idle")  # fmt: skip
        if data["state"] not in states:
            with ui.element("li").classes("flex").props("aria-current=step"):
                chip(words(data["state"]), TURN.get(data["state"], "idle"))


def _journal(rows: list[dict[str, Any]]) -> None:
    if not rows:
        empty("Nothing has happened yet.")
        return
    cells = [
        [
            when(at(row["at"])),
            _NAMES.get(row["from_state"], row["from_state"]) or "begins",
            duration(row["seconds"]) if row["seconds"] >= 1 else "–",
            row["reason"],
            row["author"] or "–",
        ]
        for row in reversed(rows)
    ]
    sheet(("when", "state", "took", "what and why", "by"), cells, name="journal, newest first")


def _past(rows: list[dict[str, Any]]) -> None:
    if not rows:
        empty("None yet.", "tutelage improve")
        return
    cells = [
        [
            when(at(row["started_at"])),
            row["turn"],
            partial(chip, words(row["state"]), TURN.get(row["state"], "info")),
            row["why"],
            row["ended"] or "–",
        ]
        for row in rows
    ]
    sheet(("began", "turn", "state", "why", "last"), cells, name="turns of the loop")


def _schedule(data: dict[str, Any]) -> None:
    settings = data["settings"]
    prose(("Due now: " if data["act"] else "") + str(data["reason"]))
    if data["next_at"]:
        text("p", f"The next look that may begin one: {when(at(data['next_at']))}", "tt-muted")
    if not data["starts_by_itself"]:
        notice(
            "Nothing starts a turn by itself. Set every, cron, on_drift or on_labels in the "
            "section improve of tutelage.yaml.", "info",
        )  # fmt: skip
    budget = settings["budget"]
    facts([
        ("every", settings["every"] or settings["cron"] or "never by the clock"),
        ("on drift", "yes" if settings["on_drift"] else "no"),
        ("on new labels", settings["on_labels"] or "no"),
        ("quiet hours", ", ".join(settings["quiet"]) or "none"),
        ("budget", f"{budget['minutes']:g} minutes, {budget['tokens']:,} tokens"),
    ])  # fmt: skip
    if data["begun"]:
        rows = [[when(at(r["at"])), r["turn"] or "–", r["reason"]] for r in data["begun"]]
        sheet(("when", "turn", "why"), rows, name="turns that the schedule began")


async def show(view: View) -> None:
    """Draw the loop."""
    await Improve(view).draw()


PAGES = (Page("/improve", "Improve", show, OPERATE, "Operate", "autorenew", "i"),)
