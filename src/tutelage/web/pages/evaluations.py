"""Evaluations: the list, one with its verdict and rows, several side by side, the full report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from tutelage.core.errors import DataError
from tutelage.web.evaluations.classes import classes
from tutelage.web.evaluations.figures import beside, differences, scores
from tutelage.web.evaluations.listed import EvaluationList
from tutelage.web.evaluations.rowwise import Rows
from tutelage.web.evaluations.several import side_by_side
from tutelage.web.evaluations.start import AtWork, ask
from tutelage.web.evaluations.verdicts import criteria, verdict_panel
from tutelage.web.parts import layout, words
from tutelage.web.parts.cells import named
from tutelage.web.parts.layout import Action
from tutelage.web.releases.make import make
from tutelage.web.view import BUILD, Page, View
from tutelage.workflows.evaluation import evaluations

_MOST = 4  # evaluations side by side
_FRAME = (
    "height: calc(100vh - 190px); min-height: 24rem; border: 1px solid var(--tt-line); "
    "border-radius: var(--tt-radius)"
)


async def show(view: View) -> None:
    """Draw what is at work and the list."""

    async def start() -> None:
        await ask(view)

    async def again(_: Any) -> None:
        await found.show_page(0)

    layout.heading(
        "Evaluations", Action("Evaluate", start, "play_arrow", "main", "e"),
        note="Who is better on the frozen test rows, by how much, and how sure that is.",
    )  # fmt: skip
    await AtWork(view, "evaluate", what="Evaluation", on_end=again).show()
    found = EvaluationList(view)
    await found.show()
    view.keys({"e": ("Start an evaluation", start)})


async def one(view: View, prefix: str) -> None:
    """Draw one evaluation: the verdict, what decided, the figures, every row."""
    report = await view.call(evaluations.whole, view.context, prefix)
    short = report["id"][:12]

    async def download() -> None:
        page = await view.attempt(evaluations.report_page, view.context, short)
        if page is not None:
            ui.download.content(page, f"evaluation-{short}.html", "text/html")

    candidate = report.get("candidate") or {}
    who = candidate.get("title") or "base model"
    actions = [
        Action("Full report", f"/evaluations/{short}/report", "article", key="r"),
        Action("Download", download, "download", key="d"),
    ]
    keys: dict[str, tuple[str, Any]] = {
        "r": ("Open the full report", lambda: _open(short)),
        "d": ("Download", download),
    }
    if _releasable(report):

        async def release() -> None:
            await make(view, candidate["name"])

        actions.append(Action("Release it", release, "inventory_2", "main", "l"))
        keys["l"] = ("Release it", release)
    layout.heading(
        f"Evaluation of the {who}",
        *actions,
        note=f"{report['rows']:,} test rows the model never saw · evaluation {short} · made "
        f"{words.ago(report['made_at'])}",
    )
    verdict_panel(report)
    criteria(report)
    scores(report)
    differences(report)
    classes(report)
    beside(report)
    Rows(view, report).show()
    view.keys(keys)


async def full_report(view: View, prefix: str) -> None:
    """Draw the report as it was written, shut in a frame that can reach nothing of this page."""
    page = await view.call(evaluations.report_page, view.context, prefix)
    back = Action("Back to the evaluation", f"/evaluations/{prefix}", "arrow_back")
    layout.heading("Full report", back)
    frame = ui.element("iframe").classes("w-full").style(_FRAME)
    frame.props["sandbox"] = "allow-scripts"
    frame.props["srcdoc"] = page
    named(frame, "The report of the evaluation").props["title"] = "The report of the evaluation"


async def several(view: View, prefixes: str) -> None:
    """Draw up to four evaluations side by side; their ids are joined by +."""
    names = [name for name in prefixes.replace(" ", "+").split("+") if name]
    if not 1 <= len(names) <= _MOST:
        raise DataError(
            f"{len(names)} evaluations can't be put side by side",
            fix="Choose two to four in the list of evaluations",
        )
    back = Action("All evaluations", "/evaluations", "arrow_back")
    layout.heading("Evaluations side by side", back)
    await side_by_side(view, names)


def _releasable(report: Mapping[str, Any]) -> bool:
    """Return whether the evaluation is of an adapter and lets it pass."""
    who = report.get("candidate") or {}
    named = who.get("name") and str(who.get("hash") or "").startswith(who["name"])
    return bool(named) and report["verdict"]["outcome"] == "pass"


def _open(short: str) -> None:
    ui.navigate.to(f"/evaluations/{short}/report")


PAGES = (
    Page("/evaluations", "Evaluations", show, BUILD, "Build", "fact_check", "e"),
    Page("/evaluations/side-by-side/{prefixes}", "Side by side", several, BUILD),
    Page("/evaluations/{prefix}", "Evaluation", one, BUILD),
    Page("/evaluations/{prefix}/report", "Full report", full_report, BUILD),
)
