"""The live figures of a job: its curve, its pace, what it said. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from tutelage.web.parts.chart import Line, line
from tutelage.web.parts.layout import card, chip
from tutelage.web.parts.text import text
from tutelage.web.parts.words import duration, number
from tutelage.web.runs.start import JobBar, tell_end
from tutelage.web.view import View
from tutelage.workflows import jobs
from tutelage.workflows.training.training_watch import Curve, thin

_NOTES = 12
_FIGURES = ("Step", "Time left", "Tokens a second", "Training loss", "Validation loss")


class Live:
    """A job as it goes on, until it ends; then `ended` is called with it."""

    def __init__(self, view: View, job: jobs.Job, ended: Callable[[jobs.Job], object]) -> None:
        self._view, self._job, self._ended = view, job, ended
        self._curve, self._offset = Curve(), 0
        self._chart: Line | None = None
        with card("Where it stands"):
            self._bar = JobBar(view, job, alone=False)
            self._figures = _facts() if _trains(job) else []
        self._plot = ui.element("div").classes("w-full")
        with card("What it said"):
            self._notes = ui.element("div").props('role="log" aria-label="What it said"')
        self._told, self._noted = 0, -1

    async def load(self) -> None:
        """Draw what there is, and look again every second while the job is at work."""
        await self._look()
        if self._job.alive:
            self._view.every(1.0, self._look)

    async def _look(self) -> None:
        if self._told and not self._job.alive:
            return
        view = self._view
        self._job = await view.call(jobs.job, view.context, self._job.id)
        events, self._offset = await view.call(
            jobs.events, view.context, self._job.id, self._offset
        )
        came = self._curve.feed(events)
        self._bar.show(self._job)
        self._draw(came)
        if not self._job.alive and self._told:
            await tell_end(self._ended, self._job)
        self._told += 1

    def _draw(self, came: bool) -> None:
        said = figures(self._curve, self._job)
        for place, value in zip(self._figures, said, strict=False):
            place.text = value
        if came:
            self._draw_curve()
        if len(self._curve.notes) != self._noted:
            self._noted = len(self._curve.notes)
            self._notes.clear()
            with self._notes:
                notes(self._curve)

    def _draw_curve(self) -> None:
        if self._chart is not None:
            self._chart.set(series(self._curve))
            return
        with self._plot, card("Loss"):
            self._chart = line(series(self._curve), name="Loss by step", unit="nats")


def _facts() -> list[TextElement]:
    """Draw the names of the figures and return the places of their values."""
    with ui.element("dl").classes("tt-facts"):
        places = []
        for name in _FIGURES:
            text("dt", name)
            places.append(text("dd", "–"))
    return places


def _trains(job: jobs.Job) -> bool:
    return job.kind in ("train", "improve")


def series(curve: Curve) -> dict[str, list[tuple[float | str, float | None]]]:
    """Return the lines of a curve."""
    return {
        "training": [(step, value) for step, value in thin(curve.train)],
        "validation": [(step, value) for step, value in thin(curve.validation)],
    }


def figures(curve: Curve, job: jobs.Job) -> list[str]:
    """Return the values of the figures beside a live run."""
    last = [points[-1][1] if points else None for points in (curve.train, curve.validation)]
    step = f"{curve.step} of {curve.total}" if curve.total else "–"
    left = duration(curve.eta_s) if job.alive and curve.eta_s is not None else "–"
    return [step, left, number(curve.pace, 0), *(number(value, 4) for value in last)]


def notes(curve: Curve) -> None:
    """Draw what a job said, the newest last."""
    if not curve.notes:
        text("p", "Nothing yet.", "tt-muted")
    for kind, said in curve.notes[-_NOTES:]:
        with ui.row().classes("items-baseline gap-2 no-wrap"):
            if kind == "warning":
                chip("warning", "warn")
            text("p", said)
