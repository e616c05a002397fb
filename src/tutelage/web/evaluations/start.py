"""Start an evaluation, and watch those at work; the work itself is a job's."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from tutelage.web.parts import layout
from tutelage.web.parts.cells import named
from tutelage.web.parts.text import text
from tutelage.web.view import View
from tutelage.workflows import jobs
from tutelage.workflows.evaluation.candidates import candidates

_AGAINST = ("base", "few_shot", "stable")


async def ask(view: View) -> None:
    """Ask whom to evaluate and against whom, and start it."""
    view.require("engineer")
    known = await view.attempt(candidates, view.context)
    if known is None:
        return
    with ui.dialog() as dialog, ui.card().classes("tt-card tt-question"):
        dialog.props["aria-label"] = "Evaluate"
        text("h2", "Evaluate")
        ui.label("The frozen test rows are asked; every candidate gets the same ones.")
        who = ui.select(known, multiple=True, label="Who (the newest adapter, if none)")
        who.classes("w-96").props("use-chips")
        beside = {name: name.replace("_", "-") for name in _AGAINST}
        rivals = ui.select(
            beside | {n: t for n, t in known.items() if n not in beside}, multiple=True,
            label="Must beat (as in the settings, if none)",
        )  # fmt: skip
        rivals.classes("w-96").props("use-chips")

        async def begin() -> None:
            view.require("engineer")
            arguments = list(who.value or [])
            for rival in rivals.value or []:
                arguments += ["--against", rival]
            started = await view.attempt(
                jobs.start, view.context, "evaluate", by=view.user.name, arguments=arguments
            )
            if started is not None:
                view.audit("evaluation.started", job=started, candidates=" ".join(who.value or []))
                dialog.close()
                view.tell("The evaluation is at work.", "good")

        with ui.row():
            ui.button("Evaluate", on_click=begin).props("no-caps")
            ui.button("Cancel", on_click=dialog.close).props("no-caps flat")
    dialog.on("hide", dialog.delete)
    dialog.open()


class AtWork:
    """What is at work of one kind: how far it is, and a button to stop it."""

    def __init__(self, view: View, kind: str, *, what: str, on_end: Any = None) -> None:
        self._view, self._kind, self._what, self._on_end = view, kind, what, on_end
        self._shown: tuple[str, ...] = ()
        self._said: list[tuple[Any, ...]] = []

    async def show(self) -> None:
        """Draw the place, fill it, and look again every two seconds."""
        self._box = ui.column().classes("w-full")
        named(self._box.props("role=status"), f"{self._what} at work")
        await self._look()
        self._view.every(2.0, self._look)

    async def _look(self) -> None:
        found = await self._view.call(jobs.running, self._view.context, self._kind)
        ids = tuple(job.id for job in found)
        ended = set(self._shown) - set(ids)
        self._shown = ids
        said = [(job.id, job.state, job.message, f"{job.progress:.2f}") for job in found]
        if said != self._said:
            self._said = said
            self._box.clear()
            with self._box:
                for job in found:
                    self._one(job)
        for name in ended:
            await self._ended(name)

    def _one(self, job: jobs.Job) -> None:
        with layout.card():
            with ui.row().classes("w-full items-center gap-4"):
                ui.icon("hourglass_top").props("aria-hidden=true")
                ui.label(f"{self._what}: {job.message}").classes("grow")
                ui.link("Watch", f"/runs/{job.id}")
                if self._view.can("engineer"):
                    stop = ui.button("Stop", icon="stop", on_click=lambda: self._stop(job.id))
                    stop.props("no-caps flat dense")
            bar = ui.linear_progress(value=job.progress, show_value=False)
            named(bar, f"{job.progress:.0%} done")

    async def _stop(self, name: str) -> None:
        self._view.require("engineer")
        if await self._view.attempt(jobs.stop, self._view.context, name) is not None:
            self._view.audit("job.stopped", job=name)

    async def _ended(self, name: str) -> None:
        job = await self._view.attempt(jobs.job, self._view.context, name)
        if job is None:
            return
        self._view.tell(f"{self._what}: {job.message}", "good" if job.state == jobs.DONE else "bad")
        if self._on_end is not None:
            await self._on_end(job)
