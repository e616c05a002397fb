"""One person at work: the item before them, the answer they give, and the way back.

What is drawn is in item.py and side.py. An answer is durable before the next item is shown; what
is typed is kept as it is typed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from nicegui import background_tasks, ui

from tutelage.web.parts.editor import Draft
from tutelage.web.view import View
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts import Given, Shown, next_item, show_item, submit
from tutelage.workflows.data.experts_leases import renew
from tutelage.workflows.data.experts_queue import Queue, Said, queue_of, said_last
from tutelage.workflows.data.experts_redact import Redacted, redact_item, restore_item
from tutelage.workflows.data.experts_typed import forget_typed, take_back

LABELLERS = ("expert", "admin")
_SEEN_S = 3.0  # how long the browser may take to show an item


class Screen(Protocol):
    """What draws: the item (None: nothing is left), and everything beside it."""

    def item(self) -> None:
        """Draw the item anew."""

    def beside(self) -> None:
        """Draw what stands beside it anew."""

    def progress(self) -> None:
        """Draw how far the person is anew."""


@dataclass
class Work:
    """What is on the desk. `before` is the person's answer in force, `was` the label they said."""

    shown: Shown | None = None
    before: Said | None = None
    was: str = ""
    unsure: bool = False
    answer: Draft | None = None
    comment: Draft | None = None
    key: str = ""
    began: float = 0.0
    touched: set[str] = field(default_factory=set)  # answer, comment
    told_taken: bool = False
    marks: list[Redacted] = field(default_factory=list)


class Desk:
    """One tab of one person. `name` is whose answers these are."""

    def __init__(self, view: View, name: str) -> None:
        self.view, self.name = view, name
        self.work = Work()
        self.queue = Queue(name, 0, 0, 0, 0, 0)
        self.last: list[Said] = []
        self.screen: Screen
        self._step: object | None = None  # what is being done
        self._drawn: float | None = None  # since when the browser is to show the item

    @property
    def shown(self) -> Shown | None:
        """The item before the person."""
        return self.work.shown

    def does(self, step: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Return a handler that takes a step, unless one is being taken.

        What is pressed before the browser has shown the next item is meant for the last one: it
        is passed by, so that a key that bounces answers once.
        """

        async def take(own: object) -> None:
            try:
                await step()
            finally:
                if self._step is own and self._drawn is None:
                    self._step = None

        def handler() -> None:
            late = self._drawn is not None and time.monotonic() - self._drawn > _SEEN_S
            if self._step is None or late:
                self._step, self._drawn = object(), None
                context = ui.context.client
                background_tasks.create(take(self._step), name="label", context=context)

        return handler

    def seen(self, key: str) -> None:
        """The browser has shown the item: what is pressed from now on is meant for it."""
        if key == self.work.key:
            self._step = self._drawn = None

    async def begin(self, item: str | None = None) -> None:
        """Put the first item on the desk: the one that is named, or the next."""
        ctx = self.view.context
        shown = await self.view.call(_opened, ctx, self.name, item)
        await self._put(shown, seen=False)

    async def open(self, item: str) -> None:
        """Put an item that was answered before on the desk, to answer it again."""
        await self._settle()
        shown = await self.view.attempt(show_item, self.view.context, item, self.name)
        if shown is not None:
            await self._put(shown)

    async def give(self, label: str | None = None, *, skip: bool = False) -> None:
        """Give the answer: a label, a skip, or what stands in the editor; then the next item."""
        work, shown = self.work, self.work.shown
        if shown is None:
            return
        self.view.require(*LABELLERS)
        await self._settle()
        flags = (["skip"] if skip else []) + (["unsure"] if work.unsure and not skip else [])
        text = work.answer.value if work.answer is not None and not skip else None
        given = Given(
            item=shown.item,
            annotator=self.name,
            label=label,
            answer=text if label is None else None,
            seconds=round(min(time.monotonic() - work.began, 86_400.0), 2),
            comment=work.comment.value if work.comment is not None else "",
            flags=tuple(flags),
            draft=shown.draft["id"] if shown.draft and not skip else None,
            key=work.key,
        )
        if await self.view.attempt(submit, self.view.context, given) is None:
            return
        await self._forget(work)
        await self._put(await self.view.call(next_item, self.view.context, self.name))

    async def leave(self) -> None:
        """Leave the field somebody types in, which sends what was typed last."""
        await _shown("document.activeElement?.blur();")

    async def back(self) -> None:
        """Undo the last step: words that were hidden, or the last answer."""
        self.view.require(*LABELLERS)
        work, ctx = self.work, self.view.context
        await self._settle()
        if work.marks and work.shown is not None and work.marks[-1].item == work.shown.item:
            mark = work.marks.pop()
            await self.view.attempt(restore_item, ctx, mark)
            self.view.tell("The words are back")
            await self._again()
            return
        taken = await self.view.attempt(take_back, ctx, self.name)
        if taken is None:
            return
        self.view.audit("label.undo", item=taken.item)
        shown = await self.view.call(show_item, ctx, taken.item, self.name)
        await self._put(shown, unsure="unsure" in taken.flags, was=taken.label or "")
        said = "skip" if taken.label is None and taken.answer is None else taken.label
        self.view.tell(f"Taken back: {said}" if said else "Your answer is taken back")

    async def hide(self, words: str, kind: str) -> None:
        """Hide words of the item as an identifier."""
        shown = self.work.shown
        if shown is None:
            return
        self.view.require(*LABELLERS)
        await self._settle()
        done = await self.view.attempt(
            redact_item, self.view.context, self.name, shown.item, words, kind
        )
        if done is None:
            return
        self.work.marks.append(done)
        self.view.audit("label.redact", item=shown.item, kind=kind)
        self.view.tell(f"Hidden as {done.token}", "good")
        await self._again()

    async def stay(self) -> None:
        """Keep the item while the page is open; say so if somebody else has it by now."""
        work = self.work
        if work.shown is None or work.before is not None:
            return
        kept = await self.view.call(renew, self.view.context, self.name, work.shown.item)
        if not kept and not work.told_taken:
            work.told_taken = True
            self.view.tell("Somebody else has this item too by now; your answer counts as well")

    async def count(self) -> None:
        """Count anew how much is left."""
        self.queue = await self.view.call(queue_of, self.view.context, self.name)
        self.screen.progress()

    async def _again(self) -> None:
        """Draw the item anew as it is in the store; what was said so far stays."""
        old = self.work
        if old.shown is None:
            return
        shown = await self.view.call(show_item, self.view.context, old.shown.item, self.name)
        await self._put(shown, unsure=old.unsure, was=old.was, began=old.began, key=old.key)

    async def _put(
        self,
        shown: Shown | None,
        *,
        unsure: bool = False,
        was: str = "",
        began: float | None = None,
        key: str | None = None,
        seen: bool = True,
    ) -> None:
        """Put an item on the desk, which the browser shows next."""
        self.last, self.queue = await self.view.call(_beside, self.view.context, self.name)
        before = None
        if shown is not None:
            before = next((one for one in self.last if one.item == shown.item), None)
        self.work = Work(
            shown,
            before,
            was or (before.label if before is not None else None) or "",
            unsure,
            key=key or secrets.token_hex(16),
            began=time.monotonic() if began is None else began,
            touched=set(shown.typed) if shown is not None else set(),
            marks=self.work.marks,
        )
        self._drawn = time.monotonic() if seen else None
        self.screen.item()
        self.screen.beside()

    async def _settle(self) -> None:
        """Keep what was typed last."""
        for draft in self._written():
            await draft.flush()

    def _written(self) -> list[Draft]:
        """Return the editors in which something was typed."""
        named = {"answer": self.work.answer, "comment": self.work.comment}
        return [draft for name, draft in named.items() if draft and name in self.work.touched]

    async def _forget(self, work: Work) -> None:
        """Drop what was kept of a text that was given."""
        if not work.touched or work.shown is None:
            return
        for draft in self._written():
            await draft.forget()
        await self.view.call(forget_typed, self.view.context, self.name, work.shown.item)


async def _shown(code: str = "") -> None:
    """Return when the browser has done all that it was sent; it may be gone."""
    try:
        await ui.run_javascript(f"{code} return true", timeout=_SEEN_S)
    except TimeoutError:
        return


def _opened(ctx: Context, name: str, item: str | None) -> Shown | None:
    return next_item(ctx, name) if item is None else show_item(ctx, item, name)


def _beside(ctx: Context, name: str) -> tuple[list[Said], Queue]:
    return said_last(ctx, name), queue_of(ctx, name)
