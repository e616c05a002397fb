"""Draw a stage's events on stderr: a heading, notes, a bar with the time left, a closing line."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from tutelage.cli.plan_view import plan_view
from tutelage.cli.screens import duration
from tutelage.core.events import Event

_TITLES = {
    "project": "Project",
    "curate": "Curate",
    "plan": "Plan",
    "train": "Train",
    "search": "Search",
    "evaluate": "Evaluate",
    "release": "Release",
    "base_release": "Release of the base model",
    "serve": "Serve",
    "rollout": "Roll out",
    "learn": "Learn",
    "improve": "Improve",
}
_MARKS = {"warning": "[yellow]![/]", "done": "[green]✓[/]", "note": "[dim]·[/]"}
_QUIET_S = 15.0  # between two lines of progress where there is no terminal to draw a bar on
_WIDE = 110  # columns from which there is room for the pace, the time taken and a long bar


class _Words(TextColumn):
    """What is done now: alone in giving way where the line is too long."""

    def __init__(self) -> None:
        super().__init__("{task.description}", table_column=Column())

    def render(self, task: Task) -> Text:
        """Return the words, to be cut with an ellipsis and never wrapped."""
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class _Remaining(ProgressColumn):
    """The time left as the stage says it, else as the pace of the bar has it."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))
        self._pace = TimeRemainingColumn()

    def render(self, task: Task) -> Text:
        """Return the time left in words."""
        left = task.fields.get("eta_s")
        return self._pace.render(task) if left is None else Text(duration(left), style="cyan")


class Live:
    """A listener for a person. When quiet (`--json`) only warnings are written."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.quiet = quiet
        self.verbose = verbose
        self._stage = ""
        self._started = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._told = time.monotonic()
        self._validation: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        if self.quiet:
            if event.kind == "warning":
                text = Text(f"warning: {event.message}")
                self.console.print(text, soft_wrap=not self.console.is_terminal)
            return
        if event.stage and event.stage != self._stage:
            self._heading(event.stage)
        if event.kind == "progress":
            self._progress(event)
            return
        if event.kind == "done":
            self._stop_bar()
        self._line(event)

    def close(self) -> None:
        """Take the bar off the screen."""
        self._stop_bar()

    def _heading(self, stage: str) -> None:
        self._stop_bar()
        self._stage, self._validation = stage, {}
        self._started = self._told = time.monotonic()
        title = _TITLES.get(stage, stage.capitalize())
        self.console.print()
        self.console.rule(f"[bold cyan]{title}[/]", align="left", style="cyan dim")

    def _line(self, event: Event) -> None:
        if "plan" in event.data:
            self.console.print(plan_view(event.data["plan"], refused=False))
            return
        if not event.message:
            return
        text = Text(event.message)
        if event.kind == "done":
            seconds = time.monotonic() - self._started
            if seconds >= 0.05:
                text.append(f" {seconds:.1f} s", style="dim")
        self._say(_MARKS.get(event.kind, _MARKS["note"]), text)

    def _say(self, mark: str, text: Text) -> None:
        """Print a sentence: under itself in a terminal, as one line in a log."""
        if not self.console.is_terminal:
            self.console.print(f"  {mark}", text, soft_wrap=True)
            return
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_column(no_wrap=True)
        line.add_column(overflow="fold")
        line.add_row(f"  {mark}", text)
        self.console.print(line)

    def _progress(self, event: Event) -> None:
        if "validation_loss" in event.data:  # stays on the screen until the next evaluation
            self._validation = {"validation_loss": event.data["validation_loss"]}
        event = replace(event, data={**self._validation, **event.data})
        if not self.console.is_terminal:
            self._progress_line(event)
            return
        if self._bar is None:
            self._bar = Progress(*self._columns(), console=self.console, transient=True)
            self._bar.start()
            self._task = None
        shown: dict[str, Any] = {
            "description": _describe(event, pace=self._wide),
            "total": event.total,
            "completed": event.done or 0,
            "eta_s": event.data.get("eta_s"),
        }
        if self._task is None:
            self._task = self._bar.add_task(**shown)
        else:
            self._bar.update(self._task, **shown)

    @property
    def _wide(self) -> bool:
        return self.console.width >= _WIDE

    def _columns(self) -> list[ProgressColumn]:
        """Return what the bar's line shows, so that the time left always fits."""
        whole = Column(no_wrap=True)
        taken = [TimeElapsedColumn(table_column=whole.copy())] if self._wide else []
        return [
            TextColumn("   "),
            SpinnerColumn(style="cyan"),
            _Words(),
            BarColumn(28 if self._wide else 8, complete_style="cyan", finished_style="green",
                      table_column=whole.copy()),
            TaskProgressColumn(),
            *taken,
            TextColumn("[dim]left[/]"),
            _Remaining(),
        ]  # fmt: skip

    def _progress_line(self, event: Event) -> None:
        """Write where a long stage stands, now and then, into a log that shows no bar."""
        now = time.monotonic()
        if now - self._told < _QUIET_S:
            return
        self._told = now
        left = event.data.get("eta_s")
        rest = f"  {duration(left)} left" if left is not None else ""
        share = f"  {event.done / event.total:.0%}" if event.done and event.total else ""
        words = Text.from_markup(f"{_describe(event, pace=True)} {share}{rest}")
        self.console.print("  ·", words, style="dim", soft_wrap=True)

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._task = None


def _describe(event: Event, *, pace: bool) -> str:
    """Return the words beside the bar: the message and the numbers people watch."""
    parts = [escape(event.message)] if event.message else []
    loss = event.data.get("loss")
    validation = event.data.get("validation_loss")
    if isinstance(loss, float):
        parts.append(f"loss [bold]{loss:.3f}[/]")
    if isinstance(validation, float):
        parts.append(f"validation [bold]{validation:.3f}[/]")
    tokens = event.data.get("tokens_per_s")
    if pace and isinstance(tokens, float):
        parts.append(f"[dim]{tokens:,.0f} tokens/s[/]")
    return "  ".join(parts)
