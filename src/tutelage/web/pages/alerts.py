"""Alerts: what fires, what is over, who was told, by which rules; silences, and a test notice.

It calls workflows/serving/monitor.py and decides nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from tutelage.web.operate.live import Live, steady
from tutelage.web.operate.sheet import Cell, sheet
from tutelage.web.operate.states import LEVEL, at, since
from tutelage.web.parts.layout import card, chip, confirm, empty, heading
from tutelage.web.parts.text import text
from tutelage.web.parts.words import capital, count, number, when
from tutelage.web.view import OPERATE, Page, View
from tutelage.workflows.serving import monitor

_EVERY_S = 5.0
_WAYS = ("operator", "admin")
_LENGTHS = {"30m": "30 minutes", "2h": "2 hours", "12h": "12 hours", "24h": "a day", "7d": "a week"}
_SHOWN = 100
_SMALL = 'outline no-wrap padding="2px 10px"'  # buttons in a line of a table
Rows = list[dict[str, Any]]


class Alerts:
    """One look at alerts and their history, kept up to date."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.firing: Rows = []

    async def draw(self) -> None:
        """Draw the page and begin to follow."""
        self.root = ui.element("div").style("display: contents")
        heading("Alerts", note="Rules look at the gateway all the time; webhooks are told.")
        with card("Firing now", classes="w-full"):
            self.now = Live(self._now)
        with card("Silences", classes="w-full"):
            self.silences = Live(self._silences)
            if self.view.can(*_WAYS):
                await self._form()
        with ui.tabs().classes("w-full").props("align=left no-caps") as tabs:
            for name in ("History", "Events", "Notices", "Rules"):
                ui.tab(name)
        with ui.tab_panels(tabs, value="History").classes("w-full bg-transparent"):
            with ui.tab_panel("History").classes("p-0"):
                self.history = Live(_history)
            with ui.tab_panel("Events").classes("p-0"):
                self.events = Live(_events)
            with ui.tab_panel("Notices").classes("p-0"):
                self._tester()
                self.notices = Live(_notices)
            with ui.tab_panel("Rules").classes("p-0"):
                rules = await self.view.attempt(monitor.rules, self.view.context)
                _rules(rules or [])
        await self.refresh()
        self.view.every(_EVERY_S, self.refresh)

    async def refresh(self) -> None:
        """Read what is new and show it."""
        ctx = self.view.context
        found = await self.view.call(monitor.alerts, ctx, ended=True, limit=_SHOWN)
        self.firing = [row for row in found["alerts"] if row["state"] == "firing"]
        self.now.show(self.firing)
        self.silences.show(found["silences"])
        newest = sorted(found["alerts"], key=lambda row: str(row["since"]), reverse=True)
        self.history.show(newest)
        self.events.show(await self.view.call(monitor.events, ctx, limit=_SHOWN))
        self.notices.show(await self.view.call(monitor.notices, ctx, _SHOWN))

    def _now(self, rows: Rows) -> None:
        if not rows:
            with ui.row().classes("items-center gap-2"):
                chip("nothing fires", "good")
            return
        cells: list[list[Cell]] = [
            [
                partial(chip, row["level"], LEVEL.get(row["level"], "idle")),
                _rule(row["alert"]),
                capital(row["message"]),
                since(row["since"]),
                count(row["count"], "time"),
                partial(self._quiet, row),
            ]
            for row in rows
        ]
        sheet(("level", "rule", "what", "since", "seen", "actions"), cells, name="alerts that fire")

    def _quiet(self, row: dict[str, Any]) -> None:
        if not self.view.can(*_WAYS):
            return
        with ui.button("Silence", icon="notifications_off").props(_SMALL) as button:
            button.props["aria-label"] = f"Silence {row['alert']}"
            with ui.menu():
                for length, name in _LENGTHS.items():
                    ui.menu_item(
                        f"for {name}",
                        steady(self.root, partial(self.silence, row["alert"], length)),
                    )

    async def silence(
        self, rule: str, length: str, deployment: str | None = None, reason: str = ""
    ) -> bool:
        """Tell nobody of a rule for a while; return whether that was possible."""
        self.view.require(*_WAYS)
        told = await self.view.attempt(
            monitor.silence, self.view.context, rule, length, deployment=deployment, reason=reason,
            author=self.view.user.name,
        )  # fmt: skip
        if told is not None:
            self.view.audit("alerts.silence", rule=rule, length=length)
            self.view.tell(f"{_rule(rule)} is silent until {when(at(told['until']))}", "good")
        await self.refresh()
        return told is not None

    async def _form(self) -> None:
        rules = await self.view.attempt(monitor.rules, self.view.context) or []
        with ui.row().classes("items-center gap-4"):
            names = {str(row["name"]): _rule(row["name"]) for row in rules}
            rule = ui.select(names, label="Rule", value=next(iter(names), None))
            length = ui.select(_LENGTHS, value="2h", label="For")
            reason = ui.input("Why (others see it)").classes("w-72")

            async def press() -> None:
                if await self.silence(rule.value, length.value, reason=reason.value or ""):
                    reason.value = ""

            ui.button("Silence", icon="notifications_off", on_click=press).props("outline")
            rule.classes("w-56")
            length.classes("w-36")

    def _silences(self, rows: Rows) -> None:
        if not rows:
            empty("Nothing is silenced. A silence keeps webhooks quiet while you work on a cause.")
            return
        cells = [
            [
                _rule(row["rule"]),
                row["deployment"] or "all",
                when(at(row["until"])),
                row["author"] or "–",
                row["reason"] or "–",
                partial(self._loud, row["rule"]),
            ]
            for row in rows
        ]
        headers = ("rule", "deployment", "until", "by", "why", "actions")
        sheet(headers, cells, name="silences in force")

    def _loud(self, rule: str) -> None:
        if not self.view.can(*_WAYS):
            return

        async def press() -> None:
            self.view.require(*_WAYS)
            if await self.view.attempt(monitor.unsilence, self.view.context, rule) is not None:
                self.view.audit("alerts.unsilence", rule=rule)
                self.view.tell(f"{_rule(rule)} is told of again", "good")
            await self.refresh()

        button = ui.button("End", on_click=steady(self.root, press)).props(_SMALL)
        button.props["aria-label"] = f"End the silence of {rule}"

    def _tester(self) -> None:
        hooks = [hook.name for hook in self.view.context.config.alerts.webhooks]
        if not hooks:
            empty("No webhook is told of alerts. Add one to alerts.webhooks in tutelage.yaml.")
            return
        if not self.view.can(*_WAYS):
            return

        async def press() -> None:
            self.view.require(*_WAYS)
            if not await confirm(f"Send a test notice to {', '.join(hooks)}?", yes="Send"):
                return
            for row in await self.view.attempt(monitor.send_test, self.view.context) or []:
                good = row["delivered"]
                told = "took it" if good else f"did not take it: {row['error']}"
                self.view.tell(f"{row['webhook']} {told}", "good" if good else "bad")
            self.view.audit("alerts.test", webhooks=", ".join(hooks))

        send = ui.button("Send a test notice", icon="send", on_click=press).props("outline")
        send.classes("self-start")


def _rule(name: str) -> str:
    """Return the name of a rule as people read it."""
    return capital(str(name).replace("-", " "))


def _history(rows: Rows) -> None:
    if not rows:
        empty("No alert has fired yet.")
        return
    cells: list[list[Cell]] = [
        [
            when(at(row["since"])),
            _rule(row["alert"]),
            partial(chip, row["level"], LEVEL.get(row["level"], "idle")),
            capital(row["message"]),
            when(at(row["ended_at"])) if row["ended_at"] else "still firing",
            number(row["count"]),
        ]
        for row in rows
    ]
    sheet(("began", "rule", "level", "what", "ended", "seen"), cells, name="alerts there were")


def _events(rows: Rows) -> None:
    if not rows:
        empty("Nothing has happened yet. Rollouts, the engine, budgets and drift are told here.")
        return
    cells = [
        [
            when(at(row["at"])),
            row["kind"],
            partial(chip, row["level"], LEVEL.get(row["level"], "idle")),
            row["deployment"] or "–",
            capital(row["message"]),
        ]
        for row in reversed(rows)
    ]
    sheet(("when", "kind", "level", "deployment", "what"), cells, name="events, newest first")


def _notices(rows: Rows) -> None:
    if not rows:
        text("p", "No webhook was told anything yet.", "tt-muted")
        return
    kinds = {"sent": "good", "failed": "bad", "waiting": "warn"}
    cells = [
        [
            when(at(row["created_at"])),
            row["webhook"],
            f"{_rule(row['alert'])} {row['status']}",
            partial(chip, row["state"], kinds.get(row["state"], "idle")),  # type: ignore[arg-type]
            number(row["attempts"]),
            row["error"] or "–",
        ]
        for row in rows
    ]
    sheet(("made", "webhook", "what", "state", "tries", "error"), cells, name="notices")


def _rules(rows: Rows) -> None:
    cells: list[list[Cell]] = [
        [
            row["name"],
            partial(chip, row["level"], LEVEL.get(row["level"], "idle")),
            row["when"],
            row["source"],
        ]
        for row in rows
    ]
    sheet(("rule", "level", "fires when", "from"), cells, name="rules in force")


async def show(view: View) -> None:
    """Draw alerts and their history."""
    await Alerts(view).draw()


PAGES = (Page("/alerts", "Alerts", show, OPERATE, "Operate", "notifications", "w"),)
