"""Row by row: what two candidates answered, side by side, by group, with a search."""

from __future__ import annotations

from typing import Any

from nicegui import background_tasks, ui

from tutelage.evaluation.report_rows import clip
from tutelage.evaluation.report_words import Report, figure, subject, title_of
from tutelage.web.parts import diff, layout
from tutelage.web.parts.cells import RULE, pager
from tutelage.web.view import View
from tutelage.workflows.evaluation import evaluations
from tutelage.workflows.evaluation.evaluations import RowView

_SIZE = 10
_GROUPS = {
    "": "All rows",
    evaluations.WORSE: "Worse than before",
    evaluations.BETTER: "Better than before",
    evaluations.BOTH_LOW: "Low both times",
    evaluations.BOTH_HIGH: "High both times",
}
_KINDS: dict[str, tuple[str, layout.Kind]] = {
    evaluations.WORSE: ("worse", "bad"),
    evaluations.BETTER: ("better", "good"),
    evaluations.BOTH_LOW: ("low both times", "warn"),
    evaluations.BOTH_HIGH: ("high both times", "idle"),
}
_ORDERS = {"change": "Largest change", "worst": "Lowest score", "best": "Highest score"}


class Rows:
    """The rows of one evaluation with their filter; they are read once, when they are asked for."""

    def __init__(self, view: View, report: Report) -> None:
        self._view, self._report = view, report
        names = [c["name"] for c in report["candidates"]]
        self._ours: str = subject(report) or names[0]
        against = (report.get("changed") or {}).get("against")
        others = [name for name in names if name != self._ours]
        self._theirs: str = str(against) if against in others else (others or [self._ours])[0]
        self._found: list[RowView] = []
        self._group, self._text, self._order = "", "", "change"

    def show(self) -> None:
        """Draw the filter; the rows come when they are read."""
        with layout.card("Row by row"):
            self._tools()
            self._box = ui.column().classes("w-full gap-4").style("min-height: 12rem")
            with self._box:
                ui.spinner()
            background_tasks.create(self._load(), name="rows", context=self._box)

    def _tools(self) -> None:
        titles = {c["name"]: title_of(self._report, c["name"])
                  for c in self._report["candidates"]}  # fmt: skip
        with ui.row().classes("w-full items-end gap-4"):
            ui.select(titles, value=self._theirs, label="Before", on_change=self._before)
            ui.select(titles, value=self._ours, label="Now", on_change=self._now)
            ui.select(_GROUPS, value="", label="Show", on_change=self._by_group).classes("w-48")
            ui.select(_ORDERS, value="change", label="First", on_change=self._by_order)
            find = ui.input("Find in rows", on_change=self._by_text)
            find.props("clearable debounce=300 type=search")

    async def _before(self, event: Any) -> None:
        self._theirs = event.value
        await self._load()

    async def _now(self, event: Any) -> None:
        self._ours = event.value
        await self._load()

    async def _by_group(self, event: Any) -> None:
        self._group = event.value or ""
        await self._draw(0)

    async def _by_order(self, event: Any) -> None:
        self._order = event.value or "change"
        await self._draw(0)

    async def _by_text(self, event: Any) -> None:
        self._text = event.value or ""
        await self._draw(0)

    async def _load(self) -> None:
        found = await self._view.attempt(
            evaluations.rows, self._view.context, self._report["id"], self._ours, self._theirs
        )
        self._found = found or []
        await self._draw(0)

    async def _draw(self, start: int) -> None:
        found = await self._view.call(
            evaluations.pick, self._found, group=self._group, text=self._text, order=self._order
        )
        totals = evaluations.counts(self._found)
        self._box.clear()
        with self._box:
            with ui.row().classes("gap-2"):
                for group, (word, kind) in _KINDS.items():
                    layout.chip(f"{totals[group]:,} {word}", kind)
            if not found:
                layout.empty("No row fits this filter.")
            for row in found[start : start + _SIZE]:
                self._row(row)
            pager(len(found), start, _SIZE, self._draw)

    def _row(self, row: RowView) -> None:
        with ui.element("article").classes("w-full pt-3 flex flex-col gap-2").style(RULE):
            with ui.row().classes("items-center gap-2"):
                if row.group:
                    layout.chip(*_KINDS[row.group])
                ui.label(row.id[:12]).classes("font-mono text-xs")
                if row.label:
                    ui.label(row.label).classes("text-sm")
            text = ui.label(clip(row.input) or "The row's text is not there any more.")
            text.classes("whitespace-pre-wrap").props("dir=auto")
            with ui.element("div").classes("grid grid-cols-1 md:grid-cols-3 gap-4 w-full"):
                _answer("Right answer", None, row.expected)
                _answer(f"Before: {self._title(self._theirs)}", row.other, row.theirs)
                _answer(
                    f"Now: {self._title(self._ours)}", row.score, row.ours,
                    before=row.theirs if self._ours != self._theirs else None,
                )  # fmt: skip
            if row.why:
                ui.label(clip(row.why)).classes("text-sm whitespace-pre-wrap")

    def _title(self, name: str) -> str:
        return title_of(self._report, name)


def _answer(
    title: str, score: float | None, text: str | None, *, before: str | None = None
) -> None:
    with ui.column().classes("gap-1 min-w-0"):
        mark = "" if score is None else f" · {_score(score)}"
        ui.label(f"{title}{mark}").classes("text-xs font-medium")
        if text is None:
            ui.label("–")
        elif before and before != text:
            diff.word_diff(clip(before), clip(text))
        else:
            shown = ui.label(clip(text) or "(empty)").props("dir=auto")
            shown.classes("whitespace-pre-wrap break-words")


def _score(score: float) -> str:
    return {0.0: "✗ wrong", 1.0: "✓ right"}.get(float(score), f"score {figure(score)}")
