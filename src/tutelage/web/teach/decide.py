"""One disputed item after another: what was asked, who said what, and the decision.

Names stay hidden until somebody asks for them, so that an answer is judged and not its author.
What is written and not decided yet is kept for the item.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from nicegui import ui

from tutelage.core.errors import Conflict
from tutelage.web.parts import words
from tutelage.web.parts.diff import summary, word_diff
from tutelage.web.parts.editor import Draft, draft_editor, restored
from tutelage.web.parts.layout import Action, button, card, chip, empty, notice
from tutelage.web.parts.text import passage, text
from tutelage.web.teach.conversation import conversation, side_by_side
from tutelage.web.teach.fields import finish_typing
from tutelage.web.view import View
from tutelage.workflows.data.experts_decide import (
    Answer,
    Case,
    DecisionQueue,
    case_of,
    decisions_of,
)
from tutelage.workflows.data.experts_review import adjudicate

NUMBERED = 10  # labels up to which each has a button and a number
LETTERED = 8  # answers that have a key: A to H
_TEACH = ("expert", "engineer", "admin")
_STATES = {
    "disputed": "The answers differ",
    "unsure": "Everybody was unsure",
    "skipped": "Everybody passed it by",
    "decided": "Decided before",
    "open": "Answers are still awaited",
    "agreed": "All say the same",
}


class Decision:
    """The item before a person, and what happens when they decide it."""

    def __init__(
        self, view: View, queue: DecisionQueue, moved: Callable[[], Awaitable[None]]
    ) -> None:
        self._view, self._queue, self._moved = view, queue, moved
        self.own = self.names = False
        self.case: Case | None = None
        self._text: Draft | None = None
        self._why: Draft | None = None
        self._pick: ui.select | None = None
        self._busy = False
        self._bound: set[str] = set()
        self.box = ui.column().classes("w-full gap-4 items-stretch").style("min-height: 34rem")

    async def open(self, item: str | None) -> None:
        """Show an item, or what to do when there is none."""
        if item is None:
            self.case = self._text = self._why = None
            self.box.clear()
            with self.box:
                self._nothing()
            return
        case = await self._view.attempt(case_of, self._view.context, item)
        if case is None:
            return
        if not self._queue.claim(case.item, self._view.user.name):
            self._view.tell("Somebody else is deciding this item now", "warn")
            return
        self.case = case
        await self.draw()

    async def draw(self) -> None:
        """Draw the item that is open."""
        case = self.case
        if case is None:
            return
        kept = await restored(self._view, _key("decide", case), _start(case))
        why = await restored(self._view, _key("why", case), (case.decision or {}).get("why", ""))
        self.box.clear()
        with self.box:
            with card("What was asked"):
                with ui.row().classes("gap-2"):
                    chip(_STATES[case.state], "warn" if case.state == "disputed" else "info")
                if case.decision is not None:
                    by, said = case.decision["by"], _value(case.decision)
                    notice(f"{by} decided: {words.short(said, 200)}. A new decision replaces it.")
                conversation(case.messages)
            self._answers(case)
            with card("Decide"):
                if case.labelled:
                    self._labels(case)
                else:
                    self._text = draft_editor(
                        self._view, item=_key("decide", case), value=kept, label="The right answer"
                    )
                self._why = draft_editor(
                    self._view, item=_key("why", case), value=why, rows=2,
                    label="Why, for the others (may be empty)",
                )  # fmt: skip
                with ui.row().classes("gap-2"):
                    if not case.labelled or self._pick is not None:
                        button(Action("Decide", self.decide, "gavel", "main", "ctrl+Enter"))
                    button(Action("Leave for later", self.later, "skip_next", key="s"))
        self._keys(case)

    async def decide(self) -> None:
        """Decide as the editor, or the list of labels, says."""
        case = self.case
        if case is None:
            return
        await finish_typing()
        if case.labelled:
            if self._pick is None or not self._pick.value:
                self._view.tell("Choose a label first", "warn")
                return
            await self._keep(case, label=str(self._pick.value))
        elif self._text is not None:
            await self._keep(case, answer=self._text.value)

    async def label(self, label: str) -> None:
        """Decide on a label."""
        if self.case is not None:
            await self._keep(self.case, label=label)

    async def take(self, answer: Answer) -> None:
        """Decide on the label of an answer, or put its text into the editor."""
        if self.case is None or not answer.value:
            return
        if self.case.labelled:
            await self.label(answer.value)
        elif self._text is not None:
            self._text.element.set_value(answer.value)

    async def later(self) -> None:
        """Go on to the next item; what was written stays with this one."""
        await self.leave()
        after = self.case.item if self.case is not None else None
        user = self._view.user.name
        await self.open(await self._view.call(self._queue.take, user, own=self.own, after=after))
        await self._moved()

    async def back(self) -> None:
        """Open what the person decided last, and then the one before, to decide it again."""
        await self.leave()
        done = await self._view.call(decisions_of, self._view.context, self._view.user.name, 50)
        items = list(dict.fromkeys(one["item"] for one in done))
        here = items.index(self.case.item) + 1 if self.case and self.case.item in items else 0
        if here >= len(items):
            self._view.tell("There is nothing before this", "info")
            return
        await self.open(items[here])
        await self._moved()

    async def leave(self) -> None:
        """Keep what was written before another item comes."""
        await finish_typing()
        await self._flush()

    async def _flush(self) -> None:
        for draft in (self._text, self._why):
            if draft is not None:
                await draft.flush()

    async def _keep(
        self, case: Case, *, label: str | None = None, answer: str | None = None
    ) -> None:
        self._view.require(*_TEACH)
        if self._busy:
            return
        self._busy = True
        try:
            why = self._why.value if self._why is not None else ""
            kept = await self._view.call(
                partial(
                    adjudicate, self._view.context, case.item, by=self._view.user.name,
                    label=label, answer=answer, why=why, seen=case.seen,
                )
            )  # fmt: skip
        except Conflict as error:
            self._view.tell(error.sentence(), "warn")
            await self._flush()
            await self.open(case.item)
            return
        finally:
            self._busy = False
        self._view.audit("label.decide", item=case.item, decision=words.short(_value(kept), 80))
        for draft in (self._text, self._why):
            if draft is not None:
                await draft.forget()
        self._text = self._why = None
        self._queue.done(case.item)
        self._view.tell(
            f"Decided: {words.short(_value(kept), 60)}. z takes you back to it.", "good"
        )
        user = self._view.user.name
        await self.open(await self._view.call(self._queue.take, user, own=self.own))
        await self._moved()

    def _answers(self, case: Case) -> None:
        if not case.answers:
            return
        with side_by_side():
            for answer in case.answers:
                self._answer(case, answer)
        texts = [one for one in case.answers if one.answer]
        if len(texts) >= 2:
            first, second = texts[0], texts[1]
            name = f"What differs between {first.mark} and {second.mark}: " + summary(
                first.value, second.value
            )
            with ui.expansion(name).classes("w-full").props("dense"):
                word_diff(first.value, second.value)

    def _answer(self, case: Case, answer: Answer) -> None:
        who = answer.annotator if self.names else f"Expert {answer.mark}"
        key = answer.mark.lower() if answer in case.answers[:LETTERED] else ""
        take = Action(f"Take {answer.mark}", partial(self.take, answer), key=key)
        actions = [take] if answer.value else []
        with card(who, *actions):
            if answer.label is not None:
                text("div", answer.label, "text-lg font-medium break-words")
            elif answer.answer:
                passage(answer.answer)
            else:
                text("div", "Passed it by", "tt-muted")
            if "unsure" in answer.flags:
                with ui.row():
                    chip("unsure", "warn")
            if answer.comment:
                with ui.column().classes("w-full gap-0"):
                    text("div", "Comment", "tt-muted")
                    passage(answer.comment)

    def _labels(self, case: Case) -> None:
        self._pick = None
        if 0 < len(case.labels) <= NUMBERED:
            with ui.row().classes("gap-2"):
                for place, name in enumerate(case.labels, start=1):
                    button(Action(name, partial(self.label, name), key=str(place % 10)))
            return
        known = list(dict.fromkeys([*(a.value for a in case.answers if a.value), *case.labels]))
        decided = (case.decision or {}).get("label")
        self._pick = ui.select(known, label="Label", with_input=True, value=decided)
        self._pick.classes("w-full")

    def _keys(self, case: Case) -> None:
        """Bind the keys of this item; what the last item's keys did is no longer there."""
        bound: dict[str, tuple[str, Callable[[], object]]] = {
            "ctrl+Enter": ("Decide", self.decide),
            "s": ("Leave for later", self.later),
            "z": ("Back to what you decided last", self.back),
            "n": ("Show or hide who said what", self.toggle_names),
        }
        for answer in case.answers[:LETTERED]:
            if answer.value:
                what = f"Take what {answer.mark} said"
                bound[answer.mark.lower()] = (what, partial(self.take, answer))
        if case.labelled and self._pick is None:
            for place, name in enumerate(case.labels, start=1):
                bound[str(place % 10)] = (f"Decide: {name}", partial(self.label, name))
        for key in self._bound - set(bound):
            self._view.bindings.pop(key, None)
        self._bound = set(bound)
        self._view.keys(bound)

    async def toggle_names(self) -> None:
        """Show who said what, or hide it again."""
        await self.leave()
        self.names = not self.names
        if self.names and self.case is not None:
            self._view.audit("label.names", item=self.case.item)
        await self.draw()
        await self._moved()

    def _nothing(self) -> None:
        empty(
            "Nothing waits for a decision. Items come here when two people answer differently, "
            "or when everybody was unsure. Give items to two people or more:",
            "tutelage data label assign --to anna,ben --overlap 2",
        )


def _key(what: str, case: Case) -> str:
    return f"{what}:{case.item}"


def _start(case: Case) -> str:
    """Return what the editor begins with: the decision there is, or nothing."""
    return str((case.decision or {}).get("answer") or "")


def _value(kept: dict[str, object]) -> str:
    label, answer = kept.get("label"), kept.get("answer")
    return str(label if label is not None else answer or "")
