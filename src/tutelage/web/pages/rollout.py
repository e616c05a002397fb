"""A live rollout: who answers how much, both releases side by side, the bound, and the levers.

It shows what rollout_watch.py reads and calls rollout.py; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from tutelage.release import routes
from tutelage.release.bundle import list_releases
from tutelage.release.rollout import ACTIVE
from tutelage.web.operate import arms, plots
from tutelage.web.operate.live import Live
from tutelage.web.operate.sheet import sheet
from tutelage.web.operate.states import ROLLOUT, STRATEGIES, at, words
from tutelage.web.parts.layout import card, chip, confirm, empty, heading, notice
from tutelage.web.parts.text import text
from tutelage.web.parts.words import when
from tutelage.web.view import OPERATE, Page, View
from tutelage.workflows.release import rollout as work
from tutelage.workflows.release.rollout_watch import watch_of

_EVERY_S = 1.0
_WAYS = ("operator", "admin")


class RolloutPage:
    """One look at a deployment's newest rollout, kept up to date."""

    def __init__(self, view: View, deployment: str) -> None:
        self.view, self.deployment = view, deployment
        self.watch = watch_of(view.context, deployment)
        self.data: dict[str, Any] = {}

    async def draw(self) -> None:
        """Draw the page and begin to follow."""
        names = await self.view.call(_names, self.view)
        heading(f"Rollout of {self.deployment}", note="Figures are of this rollout's own requests.")
        self._switch(names)
        self.says = text("p", "", "text-base").props('role="status"')
        self.levers = self._levers()
        with ui.element("div").classes("tt-grid w-full").style("--tt-least: 24rem"):
            self._boxes()
        self._plots()
        with card("What happened", classes="w-full"):
            self.journal = Live(arms.journal)
        with card("Rollouts before", classes="w-full"):
            self.past = Live(self._past)
        self.start = ui.column().classes("w-full")
        self.starts: bool | None = None
        await self.refresh()
        self.view.every(_EVERY_S, self.refresh)

    def _switch(self, names: list[str]) -> None:
        if len(names) > 1:
            ui.select(
                sorted({*names, self.deployment}), value=self.deployment, label="Deployment",
                on_change=lambda event: ui.navigate.to(_path(event.value)),
            ).classes("w-64")  # fmt: skip

    def _boxes(self) -> None:
        with card("Traffic") as self.traffic_box:
            self.traffic = Live(arms.traffic)
        with card("Verdict") as self.verdict_box:
            self.verdict = Live(arms.verdict)
        with card("Both releases") as self.sides_box:
            self.sides = Live(arms.sides)
        with card("Live scores") as self.scores_box:
            self.scores = Live(arms.scores)

    def _plots(self) -> None:
        with card("Evidence against the candidate", classes="w-full") as self.bound_box:
            text(
                "p",
                "Each line is a test that may be looked at at any time. Where one reaches the "
                "bound, the candidate is worse, and traffic goes back to the stable release.",
                "tt-muted",
            )
            self.bound = plots.Plot("Evidence of the tests by candidate requests")
            self.tests = Live(arms.tests)
        with card("Latency", classes="w-full") as self.course_box:
            self.course = plots.Plot("Latency over time of both releases")

    async def refresh(self) -> None:
        """Read what is new and show it."""
        self.data = await self.view.call(self.watch.look)
        history = await self.view.call(work.history, self.view.context, self.deployment)
        found, figures = self.data["rollout"], self.data["figures"]
        self.says.text = self.data["sentence"]
        there = found is not None and figures is not None
        for box in (self.traffic_box, self.verdict_box, self.sides_box, self.scores_box,
                    self.bound_box, self.course_box):  # fmt: skip
            box.visible = there
        if there:
            self._show()
        self._show_levers((found or {}).get("state"))
        self.past.show(history)
        await self._form(found is None or found["state"] not in ACTIVE)

    def _show(self) -> None:
        data = self.data
        for part in (self.traffic, self.verdict, self.sides, self.scores, self.tests, self.journal):
            part.show(data)
        found, figures = data["rollout"], data["figures"]
        self.bound.show(plots.bounds(figures["bounds"]), arms.bound_words(data))
        options = plots.course(figures["course"], found["candidate"], found["baseline"])
        self.course.show(options, arms.course_words(data))

    def _levers(self) -> dict[str, ui.button]:
        """Draw every lever once; they are shown and hidden, so that no press meets a new button."""
        if not self.view.can(*_WAYS):
            return {}
        with ui.row().classes("gap-2"):
            return {
                "resume": self._lever("Resume", "play_arrow", work.resume),
                "pause": self._lever("Pause", "pause", work.pause),
                "promote": self._lever("Promote now", "done_all", work.promote),
                "abort": self._lever("Abort", "undo", work.abort),
                "return": self._lever("Return", "undo", work.rollback),
            }

    def _lever(self, name: str, icon: str, move: Callable[..., dict[str, Any]]) -> ui.button:
        danger = move in (work.abort, work.rollback)
        button = ui.button(name, icon=icon)
        button.on_click(lambda: self.move(move, button.text, danger))
        button.props("outline" if move is not work.promote else "")
        if danger:
            button.props("color=negative")
        button.visible = False
        return button

    def _show_levers(self, state: str | None) -> None:
        if not self.levers:
            return
        active, held = state in ACTIVE, state in ("paused", "frozen")
        previous = self.data.get("previous")
        self.levers["return"].text = f"Return to {previous}"
        shown = {
            "resume": active and held,
            "pause": active and not held,
            "promote": active,
            "abort": active,
            "return": not active and bool(previous),
        }
        for name, button in self.levers.items():
            button.visible = shown[name]

    async def move(self, move: Callable[..., dict[str, Any]], name: str, danger: bool) -> None:
        """Ask, then move the rollout that was shown, and no other; a return, to what was shown."""
        self.view.require(*_WAYS)
        found = self.data["rollout"]
        seen = {"rollout": found["id"] if found else None}
        if move is work.rollback:
            seen["to"] = self.data["previous"]
        if not await confirm(_question(move, self.data), yes=name, danger=danger):
            return
        self.view.require(*_WAYS)
        told = await self.view.attempt(move, self.view.context, self.deployment, **seen)
        if told is not None:
            self.view.audit(f"rollout.{move.__name__}", deployment=self.deployment,
                            rollout=found["id"] if found else "")  # fmt: skip
            self.view.tell(told["sentence"], "good")
        self.watch.moved()
        await self.refresh()

    def _past(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            empty("No rollout yet. Start one below.")
            return
        cells = [
            [
                when(at(row["started_at"])),
                row["strategy"].replace("_", "-"),
                row["candidate"],
                partial(chip, words(row["state"]), ROLLOUT.get(row["state"], "idle")),
                row["why"],
            ]
            for row in rows[:20]
        ]
        headers = ("started", "strategy", "candidate", "state", "why")
        sheet(headers, cells, name="rollouts of this deployment")

    async def _form(self, free: bool) -> None:
        if free == self.starts:
            return
        self.starts = free
        self.start.clear()
        if free and self.view.can(*_WAYS):
            found = await self.view.call(_releases, self.view)
            with self.start, card("Start a rollout", classes="w-full"):
                start_form(self, found)


def start_form(page: RolloutPage, releases: list[str]) -> None:
    """Draw what starts a rollout: release, strategy and its shares."""
    view, deploy = page.view, page.view.context.config.deploy
    if not releases:
        empty("There is no release to roll out.", "tutelage release create")
        return
    with ui.row().classes("w-full items-start gap-4"):
        release = ui.select(releases, value=releases[0], label="Release").classes("w-64")
        known = {**STRATEGIES, **({} if deploy.strategy in STRATEGIES else
                                  {deploy.strategy: deploy.strategy})}  # fmt: skip
        strategy = ui.select(known, value=deploy.strategy, label="Strategy").classes("w-80")
        steps = ui.input("Steps in percent", value=", ".join(f"{s:g}" for s in deploy.canary))
        steps.bind_visibility_from(strategy, "value", lambda value: value == "canary")
        split = ui.number("Percent of users", value=deploy.split, min=1, max=99)
        split.bind_visibility_from(strategy, "value", lambda value: value == "ab")

    async def begin() -> None:
        view.require(*_WAYS)
        asked = _numbers(steps.value or "") if strategy.value == "canary" else []
        if asked is None:
            view.tell("Write the steps as percents with commas, such as 5, 50, 100.", "bad")
            return
        told = await view.attempt(
            work.start, view.context, release.value, page.deployment, strategy=strategy.value,
            steps=asked or None, split=split.value if strategy.value == "ab" else None,
        )  # fmt: skip
        if told is not None:
            view.audit("rollout.start", deployment=page.deployment, release=release.value,
                       strategy=strategy.value)  # fmt: skip
            view.tell(told["sentence"], "good")
        page.watch.moved()
        await page.refresh()

    ui.button("Start the rollout", icon="play_arrow", on_click=begin)
    notice("A candidate that does harm is taken back by itself, at every step.", "info")


def _numbers(written: str) -> list[float] | None:
    try:
        return [float(part) for part in written.replace("%", "").split(",") if part.strip()]
    except ValueError:
        return None


def _question(move: Callable[..., Any], data: dict[str, Any]) -> str:
    found, stable = data["rollout"], data["stable"]
    if move is work.promote:
        return (
            f"Give {found['candidate']} all requests now, without waiting for more evidence? "
            f"{stable} stays loaded for a while."
        )
    if move is work.abort:
        return f"Take all requests from {found['candidate']} and end the rollout? {stable} answers."
    if move is work.pause:
        return "Take no further step until you resume? Harm still rolls the candidate back."
    if move is work.resume:
        return "Let the rollout go on from its step?"
    return f"Let {data['previous']} answer every request again, in place of {stable}?"


def _names(view: View) -> list[str]:
    return [row.name for row in routes.deployments(view.context.store)]


def _releases(view: View) -> list[str]:
    return [row.name for row in reversed(list_releases(view.context.store))]


def _path(deployment: str) -> str:
    return f"/rollout/{quote(deployment, safe='')}"


async def show(view: View, deployment: str) -> None:
    """Draw the rollout of one deployment."""
    names = await view.call(_names, view)
    if deployment not in names and deployment != view.context.config.name:
        heading("There is no such deployment")
        empty(f"No deployment is called {deployment}.", "tutelage deploy list")
        ui.link("All deployments", "/deployments")
        return
    await RolloutPage(view, deployment).draw()


async def show_own(view: View) -> None:
    """Draw the rollout of the project's own deployment."""
    await show(view, view.context.config.name)


PAGES = (
    Page("/rollout", "Rollout", show_own, OPERATE, "Operate", "alt_route", "o"),
    Page("/rollout/{deployment}", "Rollout", show, OPERATE),
)
