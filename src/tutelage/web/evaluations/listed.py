"""The list of evaluations: verdict, score, gain with its interval; some may be put side by side."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from tutelage.evaluation.measures import is_rate
from tutelage.evaluation.report_words import amount, change, metric_name
from tutelage.web.evaluations.verdicts import verdict_chip
from tutelage.web.parts import layout, words
from tutelage.web.parts.cells import cell_table, named, pager
from tutelage.web.parts.text import text
from tutelage.web.view import View
from tutelage.workflows.evaluation import evaluations

_SIZE = 20
_MOST = 4  # evaluations side by side
_FILTERS = {
    "": "All",
    "pass": "Pass",
    "fail": "Fail",
    "not_enough_evidence": "Not enough evidence",
}
_HEADERS = ("Candidate", "Verdict", "Score", "Gain in points", "Rows", "Made", "Compare")


class EvaluationList:
    """The list with its filter, its pages and the choice of what to compare."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._start, self._verdict = 0, ""
        self._chosen: list[str] = []

    async def show(self) -> None:
        """Draw the filter, the button and the first page."""
        with ui.row().classes("w-full items-center gap-4"):
            choice = ui.toggle(_FILTERS, value="", on_change=self._filter).props("no-caps")
            named(choice, "Show which verdicts")
            ui.space()
            text("span", "Choose two to four to compare them.", "tt-muted")
            self._button = ui.button("Side by side", icon="compare", on_click=self._compare)
            self._button.props("no-caps outline")
        self._box = ui.column().classes("w-full")
        self._tell()
        await self.show_page(0)

    async def _filter(self, event: Any) -> None:
        self._verdict = event.value or ""
        await self.show_page(0)

    async def show_page(self, start: int) -> None:
        """Draw the page that begins at a row."""
        self._start = start
        found = await self._view.attempt(
            evaluations.listing, self._view.context, verdict=self._verdict or None,
            start=start, count=_SIZE,
        )  # fmt: skip
        if found is None:
            return
        total, entries = found
        self._box.clear()
        with self._box:
            if total == 0:
                self._empty()
                return
            cell_table(_HEADERS, [self._row(entry) for entry in entries], name="Evaluations")
            pager(total, start, _SIZE, self.show_page)

    def _empty(self) -> None:
        if self._verdict:
            layout.empty(f"No evaluation ended in “{_FILTERS[self._verdict].lower()}”.")
            return
        layout.empty(
            "Nothing was evaluated yet. An evaluation asks a model the frozen test rows and says "
            "whether it is better than what you have.",
            command="tutelage evaluate",
        )

    def _row(self, entry: dict[str, Any]) -> list[Any]:
        share = is_rate(entry["metric"])
        score = f"{metric_name(entry['metric'])} {amount(entry['score'], share)}"
        gain = "–"
        if entry["difference"] is not None:
            ends = f"{change(entry['low'], share)} to {change(entry['high'], share)}"
            gain = f"{change(entry['difference'], share)} ({ends})"
            if entry["against"]:
                gain += f" against {metric_name(entry['against'])}"
        return [
            lambda: ui.link(_title(entry), f"/evaluations/{entry['id'][:12]}"),
            lambda: verdict_chip(entry["verdict"]),
            score,
            gain,
            f"{entry['rows']:,}" if entry["rows"] else "–",
            words.ago(entry["made_at"]),
            lambda: self._box_of(entry),
        ]

    def _box_of(self, entry: dict[str, Any]) -> None:
        digest = entry["id"][:12]

        def change_of(event: Any) -> None:
            if event.value and digest not in self._chosen:
                self._chosen.append(digest)
            elif not event.value and digest in self._chosen:
                self._chosen.remove(digest)
            self._tell()

        box = ui.checkbox(value=digest in self._chosen, on_change=change_of).props("dense")
        named(box, f"Put {entry['candidate']}, evaluation {digest}, side by side")

    def _tell(self) -> None:
        count = len(self._chosen)
        self._button.set_enabled(2 <= count <= _MOST)
        self._button.set_text(f"Side by side ({count})" if count else "Side by side")
        told = "Choose two to four evaluations" if not 2 <= count <= _MOST else "Compare them"
        named(self._button, f"{told}: side by side")

    def _compare(self) -> None:
        ui.navigate.to(f"/evaluations/side-by-side/{'+'.join(self._chosen)}")


def _title(entry: dict[str, Any]) -> str:
    """Return who was evaluated, by title and name, and in which evaluation."""
    name, title = entry["name"], entry["candidate"]
    who = title if not name or name == "base" or name in title else f"{title} {name}"
    return f"{who} ({entry['id'][:6]})"
