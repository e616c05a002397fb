"""Use: requests, tokens and cost by release, key, deployment and day, and how far budgets are.

It calls workflows/serving/usage.py; prices and budgets are set in tutelage.yaml and with the keys.
"""

from __future__ import annotations

from typing import Any

from nicegui import ui

from tutelage.serving.access.accounts import number as amount
from tutelage.web.operate import plots
from tutelage.web.operate.live import Live
from tutelage.web.operate.sheet import sheet
from tutelage.web.parts.layout import card, empty, figure, heading, notice
from tutelage.web.parts.text import text
from tutelage.web.parts.words import count, number, percent, when
from tutelage.web.view import OPERATE, Page, View
from tutelage.workflows.serving import usage as work

_SPANS = {"24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days", "90d": "Last 90 days"}
_BY = {
    "release": "Release",
    "key": "Key",
    "deployment": "Deployment",
    "deployment,release": "Deployment and release",
    "release,key": "Release and key",
    "day": "Day",
}
_ALL = "All deployments"


class Usage:
    """One look at use; drawn anew as another time or grouping is chosen."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.since, self.by, self.deployment = "30d", "release", _ALL

    async def draw(self) -> None:
        """Draw the page."""
        heading("Tokens and cost", note="Counted from the request log, exact to one request.")
        daily = await self._report("day")
        names = sorted({str(row["name"]) for row in await self.view.call(_names, self.view)})
        with ui.row().classes("items-center gap-4"):
            self._choice(_SPANS, "since", "Time")
            self._choice(_BY, "by", "Group by")
            if len(names) > 1:
                self._choice([_ALL, *names], "deployment", "Deployment")
        self.sums = Live(_sums)
        with card("By day", classes="w-full"):
            self.tokens = plots.Plot("Tokens by day")
            if daily is not None and daily["total"]["cost"] is not None:
                self.cost: plots.Plot | None = plots.Plot("Cost by day", "12rem")
            else:
                self.cost = None
        with card(classes="w-full"):
            self.table = Live(_table)
        with card("Budgets", classes="w-full"):
            self.budgets = Live(_budgets)
        await self.refresh()

    def _choice(self, options: Any, name: str, label: str) -> None:
        async def chosen(event: Any) -> None:
            setattr(self, name, event.value)
            await self.refresh()

        ui.select(options, value=getattr(self, name), label=label, on_change=chosen).classes("w-56")

    async def _report(self, by: str) -> dict[str, Any] | None:
        deployment = None if self.deployment == _ALL else self.deployment
        return await self.view.attempt(
            work.usage, self.view.context, since=self.since, by=by.split(","), deployment=deployment
        )

    async def refresh(self) -> None:
        """Read and show what is chosen."""
        found, daily = await self._report(self.by), await self._report("day")
        if found is None or daily is None:
            return
        self.sums.show(found)
        self.table.show(found)
        self._days(daily)
        budgets = await self.view.call(work.budgets, self.view.context)
        self.budgets.show({"rows": budgets, "currency": found["currency"]})

    def _days(self, daily: dict[str, Any]) -> None:
        rows, total = daily["rows"], daily["total"]
        fields = (("prompt_tokens", "asked"), ("completion_tokens", "answered"))
        told = f"{number(total['tokens'])} tokens over {count(len(rows), 'day')}"
        self.tokens.show(plots.days(rows, fields, "tokens"), told + _most(rows))
        if self.cost is not None:
            priced = [{**row, "cost": row["cost"] or 0} for row in rows]
            unit = daily["currency"]
            cost = f"{total['cost'] or 0:,.4f} {unit} over {count(len(rows), 'day')}."
            self.cost.show(plots.days(priced, (("cost", "cost"),), unit), cost)


def _most(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "."
    most = max(rows, key=lambda row: row["tokens"])
    return f"; most on {most['day']}, {number(most['tokens'])}."


def _names(view: View) -> list[dict[str, Any]]:
    from tutelage.workflows.release.deploy import all_deployments

    return all_deployments(view.context)


def _sums(found: dict[str, Any]) -> None:
    total = found["total"]
    failed = total["failed"] / total["requests"] if total["requests"] else None
    cost = "–" if total["cost"] is None else f"{total['cost']:,.4f} {found['currency']}"
    with ui.row().classes("gap-8"):
        figure(number(total["requests"]), "requests")
        figure(percent(failed), "failed", "bad" if failed and failed > 0.05 else "idle")
        figure(number(total["prompt_tokens"]), "tokens asked")
        figure(number(total["completion_tokens"]), "tokens answered")
        figure(cost, "cost")
    if total["unpriced"]:
        told = f"{count(total['unpriced'], 'request has', 'requests have')} no price"
        notice(f"{told}: add prices to tutelage.yaml.", "warn")


def _table(found: dict[str, Any]) -> None:
    with ui.row().classes("tt-card-head"):
        text("h2", f"Use by {' and '.join(found['by'])}")
    if not found["rows"]:
        empty("Nothing was asked in this time. Clients call the gateway at /v1/chat/completions.")
        return
    rows = sorted(found["rows"], key=lambda row: -row["tokens"]) if "day" not in found["by"] else (
        found["rows"][::-1])  # fmt: skip
    cells = [[*(str(row[field]) for field in found["by"]), *_figures(row)] for row in rows]
    if len(rows) > 1:
        cells.append(["all", *[""] * (len(found["by"]) - 1), *_figures(found["total"])])
    headers = (*found["by"], "requests", "failed", "tokens asked", "tokens answered",
               f"cost, {found['currency']}")  # fmt: skip
    sheet(headers, cells, name="use")


def _figures(row: dict[str, Any]) -> list[str]:
    counts = (row[n] for n in ("requests", "failed", "prompt_tokens", "completion_tokens"))
    cost = "–" if row["cost"] is None else f"{row['cost']:,.4f}"
    return [*(f"{one:,}" for one in counts), cost]


def _budgets(found: dict[str, Any]) -> None:
    if not found["rows"]:
        empty("No budget is set.", "tutelage keys create NAME --budget '100000 tokens/day'")
        return
    cells = []
    for one in found["rows"]:
        unit = found["currency"] if one["unit"] == "cost" else one["unit"]
        cells.append([
            one["key"] or "everybody",
            one["deployment"] or "all",
            f"{amount(one['limit'])} {unit} a {one['per']}",
            amount(one["spent"]),
            amount(one["left"]),
            when(one["ends_at"]),
        ])  # fmt: skip
    headers = ("key", "deployment", "budget", "spent", "left", "starts anew")
    sheet(headers, cells, name="budgets")


async def show(view: View) -> None:
    """Draw tokens and cost."""
    await Usage(view).draw()


PAGES = (Page("/usage", "Tokens and cost", show, OPERATE, "Operate", "payments", "c"),)
