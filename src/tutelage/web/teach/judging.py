"""One blind judgement after another: two answers without names, or one answer by a rubric.

Which side an answer stands on is drawn anew for each pair and known to the store alone.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import ui

from tutelage.web.parts.editor import Draft, draft_editor, restored
from tutelage.web.parts.layout import Action, button, card
from tutelage.web.parts.text import passage, text
from tutelage.web.teach.conversation import conversation
from tutelage.web.teach.fields import finish_typing
from tutelage.web.teach.looks import progress_bar
from tutelage.web.view import View
from tutelage.workflows.evaluation.human_answer import Given, Shown, Side, next_task, submit, undo

_ROLES = ("expert", "engineer", "admin")
_LONGEST_S = 3600.0  # a pair that stood open for longer was not looked at all the time
_CHOICES: tuple[tuple[str, Side, str], ...] = (
    ("1", "left", "The left one is better"),
    ("2", "right", "The right one is better"),
    ("3", "tie", "Both are equally good"),
)


class Judging:
    """What a rater has before them in one study. `over` is called when nothing is left."""

    def __init__(
        self, view: View, study: str, rater: str, over: Callable[[], Awaitable[None]]
    ) -> None:
        self._view, self._study, self._rater, self._over = view, study, rater, over
        self._shown: Shown | None = None
        self._comment: Draft | None = None
        self._levels: dict[str, int] = {}
        self._since = 0.0
        self._busy = False
        self._bound: set[str] = set()
        self.box = ui.column().classes("w-full gap-4 items-stretch").style("min-height: 32rem")

    async def next(self) -> None:
        """Show what comes next, or end."""
        shown = await self._view.attempt(next_task, self._view.context, self._rater, self._study)
        self._shown, self._comment, self._levels = shown, None, {}
        if shown is None:
            self._bind({})
            await self._over()
            return
        self._since = time.monotonic()
        kept = await restored(self._view, self._item(shown), "")
        self.box.clear()
        with self.box:
            self._draw(shown, kept)

    async def choose(self, side: Side) -> None:
        """Keep which side is better."""
        await self._keep(side=side)

    async def mark(self, criterion: str, level: int) -> None:
        """Set one mark; the last one that lacks hands all of them in."""
        if self._shown is None:
            return
        self._levels[criterion] = level
        if all(one["name"] in self._levels for one in self._shown.criteria):
            await self._keep(levels=dict(self._levels))
        else:
            self._draw_marks(self._shown)

    async def skip(self) -> None:
        """Pass it by: it counts for nobody."""
        await self._keep(skip=True)

    async def back(self) -> None:
        """Take the newest judgement back and show it again."""
        self._view.require(*_ROLES)
        await self._flush()
        taken = await self._view.attempt(undo, self._view.context, self._rater, self._study)
        if taken is None:
            self._view.tell("There is nothing to take back", "info")
            return
        self._view.audit("human.undo", study=self._study)
        await self.next()

    async def _keep(self, **said: Any) -> None:
        self._view.require(*_ROLES)
        shown = self._shown
        if shown is None or self._busy:
            return
        self._busy = True
        try:
            await self._flush()
            comment = self._comment.value if self._comment is not None else ""
            spent = min(time.monotonic() - self._since, _LONGEST_S)
            given = Given(shown.assignment, self._rater, comment=comment, seconds=spent, **said)
            kept = await self._view.attempt(submit, self._view.context, given)
        finally:
            self._busy = False
        if kept is None:
            return
        if self._comment is not None:
            await self._comment.forget()
        await self.next()

    async def _flush(self) -> None:
        await finish_typing()
        if self._comment is not None:
            await self._comment.flush()

    def _item(self, shown: Shown) -> str:
        return f"judge:{shown.assignment}"

    def _draw(self, shown: Shown, kept: str) -> None:
        text("div", f"{shown.done:,} of {shown.total:,} judged", "tt-muted").props('role="status"')
        progress_bar(shown.done, shown.total, "Judged so far")
        with card("What was asked"):
            conversation(shown.messages)
            if shown.reference is not None:
                with ui.expansion("The reference answer").classes("w-full").props("dense"):
                    passage(shown.reference)
        if shown.right is None:
            with card("The answer"):
                passage(shown.left or "(nothing)")
            self._marks = ui.column().classes("w-full gap-4 items-stretch")
            self._draw_marks(shown)
        else:
            with ui.element("div").classes("tt-pair"):
                for name, answer in (("Left", shown.left), ("Right", shown.right)):
                    with card(name):
                        passage(answer or "(nothing)")
            with ui.row().classes("gap-2"):
                for key, side, name in _CHOICES:
                    button(Action(name, partial(self.choose, side), weight="main", key=key))
            self._bind({key: (name, partial(self.choose, side)) for key, side, name in _CHOICES})
        with ui.row().classes("gap-2"):
            button(Action("Skip", self.skip, "skip_next", key="s"))
            button(Action("Take the last one back", self.back, "undo", key="z"))
        self._comment = draft_editor(
            self._view, item=self._item(shown), value=kept, rows=2, label="Comment (may be empty)"
        )

    def _draw_marks(self, shown: Shown) -> None:
        """Draw the criteria; the numbers belong to the first that has no mark yet."""
        self._marks.clear()
        now = next((c for c in shown.criteria if c["name"] not in self._levels), None)
        bound: dict[str, tuple[str, Callable[[], object]]] = {}
        with self._marks:
            for one in shown.criteria:
                with card(str(one["question"] or one["name"])), ui.row().classes("gap-2"):
                    for place, level in enumerate(one["levels"]):
                        key = str(place + 1) if one is now and place < 9 else ""
                        do = partial(self.mark, one["name"], place)
                        self._level(str(level), key, do, self._levels.get(one["name"]) == place)
                        if key:
                            bound[key] = (f"{one['name']}: {level}", do)
        self._bind(bound)

    def _level(self, name: str, key: str, do: Callable[[], object], chosen: bool) -> None:
        made = button(Action(name, do, weight="main" if chosen else "plain", key=key))
        made.props["aria-pressed"] = "true" if chosen else "false"

    def _bind(self, keys: dict[str, tuple[str, Callable[[], object]]]) -> None:
        bound = dict(keys)
        if self._shown is not None:
            bound |= {"s": ("Skip", self.skip), "z": ("Take the last one back", self.back)}
        for key in self._bound - set(bound):
            self._view.bindings.pop(key, None)
        self._bound = set(bound)
        self._view.keys(bound)
