"""The form that starts a blind study: whose answers, by pairs or marks, which rows, who judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nicegui import ui

from tutelage.core.errors import DataError
from tutelage.evaluation.human.rubric import criteria_from
from tutelage.web.parts import words
from tutelage.web.parts.layout import Action, button, empty
from tutelage.web.parts.text import text
from tutelage.web.view import View
from tutelage.workflows.data.experts_people import annotators
from tutelage.workflows.evaluation.human import Order, new_study
from tutelage.workflows.evaluation.human_blind import Comparable, comparable

_MAY = ("expert", "engineer", "admin")
_ROWS = 30
_SAMPLES = {
    "differ": "where the answers differ",
    "random": "drawn at random",
    "stratified": "in proportion to the classes",
    "all": "all of them",
}


@dataclass
class _Criterion:
    """The fields of one criterion of a rubric."""

    name: ui.input
    question: ui.input
    levels: ui.input


class Form:
    """The form in a dialog. It is filled with what is usual: the last evaluation, the first two."""

    def __init__(self, view: View, found: Sequence[Comparable], people: Sequence[str]) -> None:
        self._view = view
        self._found = {one.name: one for one in found}
        self._criteria: list[_Criterion] = []
        with ui.dialog() as self._dialog, ui.card().classes("tt-card tt-sheet"):
            self._dialog.props["aria-label"] = "New blind study"
            self._dialog.on("hide", self._dialog.delete)
            text("h2", "New blind study")
            if not found:
                empty("There is no evaluation whose answers could be judged.", "tutelage evaluate")
                ui.button("Close", on_click=self._dialog.close).props("flat")
                return
            self._fields(found, people)

    def open(self) -> None:
        """Show it."""
        self._dialog.open()

    def _fields(self, found: Sequence[Comparable], people: Sequence[str]) -> None:
        titles = {
            one.name: f"{words.when(one.at)}, {words.count(one.rows, 'row')}" for one in found
        }
        first = found[0]
        self._evaluation = ui.select(titles, value=first.name, label="Evaluation",
                                     on_change=self._chosen).classes("w-full")  # fmt: skip
        self._names = ui.select(list(first.candidates), value=list(first.candidates[:2]),
                                multiple=True, label="Whose answers").classes("w-full")  # fmt: skip
        self._names.props("use-chips")
        self._how = ui.toggle({"pairs": "Two side by side", "marks": "Each by itself, by marks"},
                              value="pairs", on_change=self._switched)  # fmt: skip
        self._how.props("no-caps unelevated")
        self._rubric = ui.column().classes("w-full gap-2")
        self._rubric.set_visibility(False)
        with self._rubric:
            text("p", "Name what is marked, and its levels from worst to best.", "tt-muted")
            self._list = ui.column().classes("w-full gap-2")
            button(Action("One more criterion", self._add, "add"))
        with ui.row().classes("gap-2 w-full"):
            self._sample = ui.select(_SAMPLES, value="differ", label="Rows").classes("w-64")
            self._rows = ui.number("At most", value=_ROWS, min=1, precision=0).classes("w-28")
            self._overlap = ui.number("People a row", value=1, min=1, precision=0).classes("w-32")
        self._people = ui.select(list(people), value=list(people[:1]), multiple=True,
                                 label="Who judges", new_value_mode="add-unique",
                                 with_input=True).classes("w-full")  # fmt: skip
        self._people.props("use-chips")
        self._shared = ui.checkbox("Whoever is free takes the next row")
        self._reference = ui.checkbox("Show the reference answer too")
        self._problem = text("p", "", "tt-bad").props('role="alert"')
        with ui.row().classes("tt-actions"):
            ui.button("Cancel", on_click=self._dialog.close).props("flat")
            ui.button("Start", on_click=self.start)

    def _chosen(self) -> None:
        names = list(self._found[str(self._evaluation.value)].candidates)
        self._names.set_options(names, value=names[:2])

    def _switched(self) -> None:
        marks = self._how.value == "marks"
        self._rubric.set_visibility(marks)
        if marks and not self._criteria:
            self._add()

    def _add(self) -> None:
        with self._list, ui.row().classes("gap-2 w-full"):
            self._criteria.append(
                _Criterion(
                    ui.input("Name, such as correct").classes("w-56"),
                    ui.input("Question").classes("w-64"),
                    ui.input("Levels: wrong, partly, right").classes("w-64"),
                )
            )

    async def start(self) -> None:
        """Make the study and open it; what is wrong is said in the form."""
        self._view.require(*_MAY)
        try:
            made = await self._view.call(new_study, self._view.context, self._order())
        except DataError as error:
            self._problem.set_text(error.sentence())
            return
        self._view.audit("human.new", study=str(made["study"]))
        self._dialog.close()
        ui.navigate.to(f"/compare-blind/{made['study']}")

    def _order(self) -> Order:
        marks = [
            {
                "name": str(one.name.value or "").strip(),
                "question": str(one.question.value or "").strip(),
                "levels": [p.strip() for p in str(one.levels.value or "").split(",") if p.strip()],
            }
            for one in self._criteria
            if str(one.name.value or "").strip()
        ]
        by_marks = self._how.value == "marks"
        rows = self._rows.value
        return Order(
            people=tuple(str(name) for name in self._people.value or ()),
            candidates=tuple(str(name) for name in self._names.value or ()),
            sample=self._sample.value or "differ",
            rows=int(rows) if rows else None,
            overlap=int(self._overlap.value or 1),
            shared=bool(self._shared.value),
            reference=bool(self._reference.value),
            evaluation=str(self._evaluation.value),
            criteria=criteria_from(marks) if by_marks else (),
        )


async def ask(view: View) -> None:
    """Open the form."""
    view.require(*_MAY)
    found = await view.call(comparable, view.context)
    people = [one["name"] for one in await view.call(annotators, view.context) if one["active"]]
    Form(view, found, list(dict.fromkeys([view.user.name, *people]))).open()
