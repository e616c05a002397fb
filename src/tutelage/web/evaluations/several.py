"""Several evaluations side by side: the verdicts first, every metric, and what sets two apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from tutelage.evaluation.measures import is_rate
from tutelage.evaluation.report_words import amount, between, metric_name
from tutelage.web.evaluations.figures import interval, whole_scale
from tutelage.web.evaluations.verdicts import verdict_chip
from tutelage.web.parts import chart, diff, layout, words
from tutelage.web.parts.cells import RULE, Cell, cell_table, pager
from tutelage.web.parts.text import passage, text
from tutelage.web.view import View
from tutelage.workflows.evaluation import evaluations
from tutelage.workflows.evaluation.compare import compare

_SIZE = 10


async def side_by_side(view: View, prefixes: Sequence[str]) -> None:
    """Draw the columns, and the first evaluation paired with each other one."""
    found = await view.call(evaluations.side_by_side, view.context, prefixes)
    columns = found["columns"]
    _verdicts(columns)
    _metrics(found)
    if len(columns) > 1:
        _apart(view, columns)


def _verdicts(columns: Sequence[Mapping[str, Any]]) -> None:
    with layout.card("Verdicts"):
        rows: list[Sequence[Cell]] = [
            [
                _link(column),
                _chip(column),
                column["sentence"],
                f"{column['rows']:,}",
                column["dataset"] or "–",
                words.ago(column["made_at"]),
            ]
            for column in columns
        ]
        headers = ("Evaluation", "Verdict", "Why", "Rows", "Dataset version", "Made")
        cell_table(headers, rows, name="Verdicts side by side")


def _metrics(found: Mapping[str, Any]) -> None:
    columns, metrics = found["columns"], found["metrics"]
    if not metrics:
        return
    with layout.card("Every metric"):
        first = metrics[0]
        lines = [
            interval(_name(column), cell)
            for column, cell in zip(columns, first["cells"], strict=True)
            if cell and cell.get("estimate") is not None
        ]
        text("h3", words.capital(metric_name(first["name"])))
        chart.intervals(
            lines, name=f"{metric_name(first['name'])} of each with its interval",
            percent=_share(first), **whole_scale(_share(first)),
        )  # fmt: skip
        rows: list[Sequence[Cell]] = [
            [metric_name(line["name"]), *(_cell(cell, _share(line)) for cell in line["cells"])]
            for line in metrics
        ]
        cell_table(
            ["Metric", *map(_name, columns)], rows, name="Every metric side by side", whole=True
        )


def _apart(view: View, columns: Sequence[Mapping[str, Any]]) -> None:
    """Draw a button a pair: the paired comparison takes a moment."""
    with layout.card("What sets them apart"):
        ui.label(
            "Paired over the same test rows, so that hard rows weigh on both alike. Only "
            "evaluations of the same rows can be paired."
        )
        box = ui.column().classes("w-full gap-4")
        first = columns[0]
        with box:
            for other in columns[1:]:
                Pair(view, first, other).draw()


class Pair:
    """Two evaluations paired: who is better, by every metric, and the rows that changed."""

    def __init__(self, view: View, a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
        self._view, self._a, self._b = view, a, b
        self._found: dict[str, Any] = {}

    def draw(self) -> None:
        """Draw the button and the place for what it finds."""
        names = f"{_name(self._a)} with {_name(self._b)}"
        self._button = ui.button(f"Pair {names}", icon="compare_arrows", on_click=self._compare)
        self._button.props("no-caps outline")
        self._box = ui.column().classes("w-full gap-3")

    async def _compare(self) -> None:
        self._button.props("loading")
        found = await self._view.attempt(
            compare, self._view.context, self._a["id"][:12], self._b["id"][:12],
            labels=(_name(self._a), _name(self._b)),
        )  # fmt: skip
        self._button.props(remove="loading")
        if found is None:
            return
        self._found = found
        self._box.clear()
        with self._box:
            text("h3", found["sentence"])
            self._metrics()
            self._rows = ui.column().classes("w-full gap-3")
        await self._turn(0)

    def _metrics(self) -> None:
        from tutelage.evaluation.comparison import metric_rows

        headers, rows = metric_rows(self._found)
        cell_table(headers, rows, name="Paired differences")

    async def _turn(self, start: int) -> None:
        changed = self._found["changed"]
        rows = [("a", row) for row in changed["a_better"]]
        rows += [("b", row) for row in changed["b_better"]]
        rows.sort(key=lambda pair: -abs(pair[1]["score_a"] - pair[1]["score_b"]))
        self._rows.clear()
        with self._rows:
            better = {"a": len(changed["a_better"]), "b": len(changed["b_better"])}
            first = words.count(better["a"], "row is", "rows are")
            ui.label(f"{first} better in {_name(self._a)}, {better['b']:,} in {_name(self._b)}.")
            for who, row in rows[start : start + _SIZE]:
                self._row(who, row)
            pager(len(rows), start, _SIZE, self._turn)

    def _row(self, who: str, row: Mapping[str, Any]) -> None:
        winner = self._a if who == "a" else self._b
        with ui.element("article").classes("w-full pt-3 flex flex-col gap-2").style(RULE):
            layout.chip(f"better in {_name(winner)}", "info")
            passage(row["input"])
            with ui.element("div").classes("grid grid-cols-1 md:grid-cols-3 gap-4 w-full"):
                _answer("Right answer", row["expected"])
                _answer(_name(self._a), row["a"])
                with ui.column().classes("gap-1 min-w-0"):
                    ui.label(_name(self._b)).classes("text-xs font-medium")
                    diff.word_diff(row["a"] or "", row["b"] or "")


def _answer(title: str, content: str | None) -> None:
    with ui.column().classes("gap-1 min-w-0"):
        ui.label(title).classes("text-xs font-medium")
        passage(content or "–")


def _name(column: Mapping[str, Any]) -> str:
    return f"{column['title']} ({column['id'][:6]})"


def _link(column: Mapping[str, Any]) -> Cell:
    return lambda: ui.link(_name(column), f"/evaluations/{column['id'][:12]}")


def _chip(column: Mapping[str, Any]) -> Cell:
    return lambda: verdict_chip(column["verdict"])


def _share(line: Mapping[str, Any]) -> bool:
    """Return whether a metric's figures are all ratios, which read best in percent."""
    if not is_rate(line["name"]):
        return False
    ends = [cell.get(key) for cell in line["cells"] if cell for key in ("estimate", "low", "high")]
    return all(0 <= end <= 1 for end in ends if end is not None)


def _cell(figures: Mapping[str, Any] | None, share: bool) -> str:
    if not figures or figures.get("estimate") is None:
        return "–"
    ends = between(figures.get("low"), figures.get("high"), share)
    return f"{amount(figures['estimate'], share)} ({ends})"
