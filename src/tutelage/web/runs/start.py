"""Starting long work from a page, and the bar that follows it. The work itself is a job's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import quote

from nicegui import ui

from tutelage.web.parts.layout import Action, Kind, chip, confirm
from tutelage.web.parts.text import text
from tutelage.web.parts.words import duration
from tutelage.web.view import View, done
from tutelage.workflows import jobs

NAMES = {
    "train": "Training",
    "search": "Search of settings",
    "curate": "New dataset version",
    "evaluate": "Evaluation",
    "improve": "Turn of the loop",
    "plan": "Plan",
    "tokens": "Reading of tokens",
    "prompt": "Test of a prompt",
}
_STATES: dict[str, tuple[str, Kind]] = {
    jobs.RUNNING: ("at work", "info"),
    jobs.STOPPING: ("stopping", "warn"),
    jobs.DONE: ("done", "good"),
    jobs.FAILED: ("failed", "bad"),
    jobs.STOPPED: ("stopped", "idle"),
}
_MAY = {"improve": ("engineer", "operator")}


def may(kind: str) -> tuple[str, ...]:
    """Return the roles that may start and stop a kind of job."""
    return _MAY.get(kind, ("engineer",))


def title(kind: str) -> str:
    """Return a kind of job as people call it."""
    return NAMES.get(kind, kind)


def state(name: str) -> tuple[str, Kind]:
    """Return the words and the colour of a job's state."""
    return _STATES.get(name, (name, "idle"))


def run_path(id: str) -> str:
    """Return the page of a job, an adapter or a search."""
    return f"/runs/{quote(id, safe='')}"


async def start(view: View, kind: jobs.Kind, arguments: Sequence[str] = ()) -> str | None:
    """Start a job for the person and return its id; why it can't be is shown, and None returned."""
    view.require(*may(kind))
    made = await view.attempt(
        jobs.start, view.context, kind, by=view.user.name, arguments=arguments
    )
    if made is not None:
        view.audit(f"start {kind}", job=made)
    return made


def starting(
    view: View, kind: jobs.Kind, arguments: Sequence[str] = ()
) -> Callable[[], Awaitable[None]]:
    """Return a handler that starts a job and goes to its page."""

    async def go() -> None:
        made = await start(view, kind, arguments)
        if made is not None:
            ui.navigate.to(run_path(made))

    return go


def stopping(view: View, id: str, kind: str) -> Callable[[], Awaitable[None]]:
    """Return a handler that asks, then stops a job; where it doesn't listen, at once."""

    async def go() -> None:
        view.require(*may(kind))
        now = await view.attempt(jobs.job, view.context, id)
        if now is None or not now.alive:
            return
        again = now.state == jobs.STOPPING
        question = (
            "It was asked to stop already. End its process at once? Work since the last "
            "checkpoint is lost."
            if again
            else f"Stop this? {title(kind)} can be started again and goes on from its last "
            "checkpoint."
        )
        if not await confirm(question, yes="End it at once" if again else "Stop", danger=True):
            return
        view.require(*may(kind))
        if await view.attempt(jobs.stop, view.context, id) is not None:
            view.audit(f"stop {kind}", job=id)
            view.tell("It was asked to stop")

    return go


class JobBar:
    """Where a job stands, kept up to date; `ended` is called once with the job when it is over.

    Not `alone`, it is shown what is new by who drew it, and names no job.
    """

    def __init__(
        self,
        view: View,
        job: jobs.Job,
        ended: Callable[[jobs.Job], object] | None = None,
        *,
        alone: bool = True,
    ) -> None:
        self._view, self._id, self._ended = view, job.id, ended
        self.over = not job.alive
        with ui.element("div").classes("tt-job"):
            with ui.row().classes("items-center gap-3 w-full"):
                self._chip = ui.element("div")
                if alone:
                    ui.link(title(job.kind), run_path(job.id))
                self._left = text("span", "", "tt-muted")
            self._bar = ui.linear_progress(0, show_value=False, size="8px")
            self._bar.props["aria-label"] = f"{title(job.kind)}: how far"
            self._said = text("p", "", "tt-muted tt-job-said").props('role="status"')
        self._state = ""
        self.show(job)
        if alone and not self.over:
            view.every(1.0, self._look)

    def show(self, job: jobs.Job) -> None:
        """Show the job as it is."""
        if job.state != self._state:
            self._state = job.state
            self._chip.clear()
            with self._chip:
                chip(*state(job.state))
        self._bar.value = round(job.progress, 4)
        self._bar.props["indeterminate"] = job.alive and not job.progress
        self._said.text = job.message
        self._left.text = f"{duration(job.eta_s)} left" if job.eta_s else ""

    async def _look(self) -> None:
        if self.over:
            return
        job = await self._view.call(jobs.job, self._view.context, self._id)
        self.show(job)
        if not job.alive:
            self.over = True
            if self._ended is not None:
                await tell_end(self._ended, job)


async def tell_end(ended: Callable[[jobs.Job], object], job: jobs.Job) -> None:
    """Call what waits for a job's end."""
    await done(lambda: ended(job))


def stop_action(view: View, job: jobs.Job) -> Action:
    """Return the button that stops a job."""
    return Action("Stop", stopping(view, job.id, job.kind), icon="stop", weight="danger")
