"""Deployments: the names that clients call, who answers for each, and the servers behind them.

It calls workflows/release/deploy.py; what a deployment answers is moved on the page of its rollout.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from tutelage.release.bundle import list_releases
from tutelage.web.operate.live import Live, steady
from tutelage.web.operate.sheet import Cell, sheet
from tutelage.web.operate.states import GATEWAY, ROLLOUT, at, prose, since, words
from tutelage.web.parts.layout import Action, button, card, chip, confirm, empty, heading
from tutelage.web.parts.text import text
from tutelage.web.parts.words import when
from tutelage.web.view import OPERATE, Page, View
from tutelage.workflows.release import deploy, rollout
from tutelage.workflows.release.gateway_state import gateway_state
from tutelage.workflows.serving.keep_alive import pulses

_EVERY_S = 5.0
_WAYS = ("operator", "admin")
_BASE = "The base model"


class Deployments:
    """One look at all deployments, kept up to date."""

    def __init__(self, view: View) -> None:
        self.view = view

    async def draw(self) -> None:
        """Draw the page and begin to follow."""
        self.root = ui.element("div").style("display: contents")
        heading("Deployments", note="Names that clients call, and the releases that answer.")
        self.gateway = Live(self._gateway)
        with card("Who answers", classes="w-full"):
            self.table = Live(self._table)
        if self.view.can(*_WAYS):
            await self._form()
        with card("Newest rollouts", classes="w-full"):
            self.rollouts = Live(self._rollouts)
        with card("Servers", classes="w-full"):
            await self._servers()
        await self.refresh()
        self.view.every(_EVERY_S, self.refresh)

    async def refresh(self) -> None:
        """Read what is new and show it."""
        ctx = self.view.context
        self.gateway.show(await self.view.call(gateway_state, ctx))
        self.table.show(await self.view.call(deploy.all_deployments, ctx))
        self.rollouts.show(await self.view.call(rollout.history, ctx))

    def _gateway(self, found: dict[str, Any]) -> None:
        with ui.row().classes("items-center gap-2"):
            chip(f"gateway {words(found['state'])}", GATEWAY.get(found["state"], "warn"))
            prose(found["says"], "tt-muted m-0")

    def _table(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            empty("No deployment yet. The first start makes the project's own.", "tutelage up")
            return
        cells: list[list[Cell]] = [
            [
                partial(ui.link, row["name"], _path(row["name"])),
                partial(_whole, row["stable"]),
                partial(_whole, row["previous"] or "–"),
                partial(_state, row["rollout"]),
                partial(self._actions, row["name"]),
            ]
            for row in rows
        ]
        headers = ("deployment", "release that answers", "release before", "newest rollout",
                   "actions")  # fmt: skip
        sheet(headers, cells, name="deployments")

    def _actions(self, name: str) -> None:
        with ui.row().classes("gap-2"):
            button(Action("Rollout", _path(name), "alt_route"))
            if self.view.can(*_WAYS) and name != self.view.context.config.name:
                made = ui.button(
                    icon="delete", on_click=steady(self.root, partial(self.remove, name))
                )
                made.props("flat round dense")
                made.props["aria-label"] = f"Remove {name}"

    async def remove(self, name: str) -> None:
        """Ask, then remove a deployment."""
        self.view.require(*_WAYS)
        question = f"Remove {name}? Clients that call it are refused; records of its requests stay."
        if not await confirm(question, yes="Remove", danger=True):
            return
        if await self.view.attempt(deploy.remove, self.view.context, name) is not None:
            self.view.audit("deployment.remove", deployment=name)
            self.view.tell(f"{name} is removed", "good")
        await self.refresh()

    async def _form(self) -> None:
        found = await self.view.call(list_releases, self.view.context.store)
        releases = [_BASE, *(row.name for row in reversed(found) if row.kind != "base")]
        with card("New deployment", classes="w-full"), ui.row().classes("items-center gap-4"):
            name = ui.input("Name that clients call").classes("w-64")
            release = ui.select(releases, value=_BASE, label="Release that answers").classes("w-64")

            async def make() -> None:
                self.view.require(*_WAYS)
                wanted = (name.value or "").strip()
                chosen = None if release.value == _BASE else release.value
                told = await self.view.attempt(deploy.create, self.view.context, wanted, chosen)
                if told is not None:
                    self.view.audit("deployment.create", deployment=wanted)
                    self.view.tell(f"{wanted}: {told['sentence']}", "good")
                    name.value = ""
                await self.refresh()

            ui.button("Make it", icon="add", on_click=make)

    def _rollouts(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            empty("No traffic was moved yet. A rollout moves it step by step, on evidence.")
            return
        cells = [
            [
                when(at(row["started_at"])),
                partial(ui.link, row["deployment"], _path(row["deployment"])),
                partial(_whole, row["candidate"]),
                row["strategy"].replace("_", "-"),
                partial(_state, row["state"]),
                row["why"],
            ]
            for row in rows[:10]
        ]
        headers = ("started", "deployment", "candidate", "strategy", "state", "why")
        sheet(headers, cells, name="newest rollouts")

    async def _servers(self) -> None:
        engine = self.view.context.config.deploy.engine
        if engine == "embedded":
            text("p", "The model runs beside the gateway; there is no other server.")
            if not await self.view.attempt(pulses, self.view.context):
                return
        else:
            text("p", f"The engine is {engine}.")
        place = ui.column().classes("w-full")

        async def ask() -> None:
            found = await self.view.attempt(deploy.backends, self.view.context)
            alive = await self.view.attempt(pulses, self.view.context)
            place.clear()
            with place:
                if found is not None:
                    _show_servers(found["backends"])
                if alive:
                    _show_pulses(alive)

        asking = ui.button("Ask the servers", icon="dns", on_click=ask).props("outline")
        asking.classes("self-start")


def _show_servers(rows: list[dict[str, Any]]) -> None:
    if not rows:
        empty("There is no other server to ask: the engine runs beside the gateway.")
        return
    cells = [
        [
            row["name"],
            row["base_url"],
            partial(chip, "up" if row["up"] else "down", "good" if row["up"] else "bad"),
            row["problem"] or ", ".join(row.get("releases") or []) or "–",
        ]
        for row in rows
    ]
    sheet(("server", "address", "state", "releases, or what is wrong"), cells, name="servers")


def _show_pulses(rows: list[dict[str, Any]]) -> None:
    cells = [
        [str(row["name"]), str(row["every"]), since(row.get("last_success")),
         str(row.get("last_problem") or "–")]
        for row in rows
    ]  # fmt: skip
    sheet(("kept alive", "every", "last answer", "problem"), cells, name="models kept alive")


def _state(state: str | None) -> None:
    if state is None:
        text("span", "–")
    else:
        chip(words(state), ROLLOUT.get(state, "idle"))


def _whole(name: object) -> None:
    """Draw a name that is not broken at its hyphens."""
    text("span", name, "whitespace-nowrap")


def _path(name: str) -> str:
    return f"/rollout/{quote(name, safe='')}"


async def show(view: View) -> None:
    """Draw all deployments."""
    await Deployments(view).draw()


PAGES = (Page("/deployments", "Deployments", show, OPERATE, "Operate", "dns", "s"),)
