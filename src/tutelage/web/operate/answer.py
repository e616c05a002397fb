"""One answer of production whole: what was asked, what was said of it, and where it comes from."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from tutelage.web.operate.arms import ARMS
from tutelage.web.operate.sheet import sheet
from tutelage.web.operate.states import at
from tutelage.web.operate.tree import tree
from tutelage.web.parts.editor import Draft, draft_editor, restored
from tutelage.web.parts.layout import Action, card, chip, empty, facts, heading
from tutelage.web.parts.text import passage, text
from tutelage.web.parts.words import milliseconds, number, short, when
from tutelage.web.view import View
from tutelage.workflows.feedback import feedback, records
from tutelage.workflows.release.release_lineage import trace

_WAYS = ("operator", "admin")
_USES = {"train": "may be trained on once reviewed"}
_ROLES = {"system": "Instructions", "user": "Asked", "assistant": "Answered before"}


class Answer:
    """One look at a record."""

    def __init__(self, view: View, record: str) -> None:
        self.view, self.record = view, record

    async def draw(self) -> None:
        """Draw the page."""
        found = await self.view.call(records.record, self.view.context, self.record)
        actions = [Action("All answers", "/traffic", "arrow_back")]
        if self.view.can(*_WAYS) and found.get("question"):
            actions.append(Action("Send to label", self.send, "label"))
        heading("One answer", *actions, note=self.record)
        with ui.element("div").classes("tt-grid w-full").style("--tt-least: 22rem"):
            with card("Asked and answered"):
                _turns(found)
            with card("Facts"):
                _facts(found)
        with card("What was said of it", classes="w-full"):
            self.said = ui.column().classes("w-full")
            self._said(found)
            if self.view.can(*_WAYS):
                await self._form()
        with card("Where it comes from", classes="w-full"):
            self.origin = ui.column().classes("w-full")
            with self.origin:
                ui.button("Show its lineage", icon="account_tree", on_click=self.trace).props(
                    "outline"
                )

    async def trace(self) -> None:
        """Read and draw the lineage."""
        found = await self.view.attempt(trace, self.view.context, self.record)
        if found is not None:
            self.origin.clear()
            with self.origin:
                tree(found["tree"])

    async def send(self) -> None:
        """Give the question to the experts."""
        self.view.require(*_WAYS)
        told = await self.view.attempt(records.send_to_label, self.view.context, [self.record], ())
        if told is not None:
            self.view.audit("traffic.label", record=self.record, batch=told["batch"])
            people = ", ".join(told["people"])
            self.view.tell(f"It waits in the label queue of {people}", "good")

    def _said(self, found: dict[str, Any]) -> None:
        self.said.clear()
        with self.said:
            if not found["signals"]:
                empty("Nobody has said anything of this answer.")
                return
            score = found["score"]
            text(
                "p", f"Score {number(score)} of 1" if score is not None else "No score", "tt-muted"
            )
            rows = [
                [when(at(one["at"])), str(one["signal"]), _value(one["value"]),
                 one["author"] or "–"]
                for one in found["signals"]
            ]  # fmt: skip
            sheet(("when", "signal", "value", "by"), rows, name="feedback on this answer")

    async def _form(self) -> None:
        labels = self.view.context.config.output.labels
        with ui.row().classes("items-center gap-4"):
            for name, rating, icon in (("Good", "up", "thumb_up"), ("Bad", "down", "thumb_down")):
                press = partial(self.say, rating=rating)
                ui.button(name, icon=icon, on_click=press).props("outline")
            chosen = ui.select(list(labels), label="The right answer") if labels else None
            if chosen is not None:
                chosen.classes("w-48")
        written = None if labels else await self._draft("edit", "The right answer", 3)
        comment = await self._draft("comment", "Comment", 2)

        async def keep() -> None:
            edit = chosen.value if chosen is not None else written.value if written else None
            said = {"edit": edit, "comment": comment.value}
            if not await self.say(**{name: value for name, value in said.items() if value}):
                return
            if chosen is not None:
                chosen.value = None
            for draft in (written, comment):
                if draft is not None:
                    await draft.forget()
                    draft.element.value = ""

        ui.button("Keep it", icon="save", on_click=keep).classes("self-start")

    async def _draft(self, kind: str, label: str, rows: int) -> Draft:
        item = f"answer:{kind}:{self.record}"
        value = await restored(self.view, item, "")
        return draft_editor(self.view, item=item, value=value, label=label, rows=rows)

    async def say(self, **said: Any) -> bool:
        """Keep feedback in the person's name; return whether it is durable."""
        self.view.require(*_WAYS)
        if not said:
            self.view.tell("Write the right answer or a comment first.", "warn")
            return False
        body = {"record_id": self.record, **said}
        kept = await self.view.attempt(
            feedback.add, self.view.context, body, author=self.view.user.name
        )
        if kept is None:
            return False
        self.view.audit("traffic.feedback", record=self.record, kinds=", ".join(kept["kept"]))
        self.view.tell("It is kept", "good")
        self._said(await self.view.call(records.record, self.view.context, self.record))
        return True


def _value(value: Any) -> str:
    """Return what was said as people read it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    return str(value)


def _turns(found: dict[str, Any]) -> None:
    for turn in found["messages"]:
        role = str(turn.get("role", ""))
        text("h3", _ROLES.get(role, role))
        content = turn.get("content")
        passage(content if isinstance(content, str) else short(str(content), 4000))
    text("h3", "Answer")
    if found.get("status", 200) >= 400:
        chip(f"status {found['status']}", "bad")
        passage(found.get("error") or "")
    passage(found["response"] if found["response"] is not None else "The record is not there.")


def _facts(found: dict[str, Any]) -> None:
    if "at" not in found:
        empty("The record was deleted, or has not arrived yet.")
        return
    pairs: list[tuple[str, object]] = [
        ("when", when(at(found["at"]))),
        ("deployment", found["deployment"]),
        ("release", f"{found['release']} ({ARMS.get(found['arm'], found['arm'])})"),
        ("rollout", found["rollout"] or "none"),
        ("key", found["key"] or "none"),
        ("took", milliseconds(found["latency_ms"])),
        ("first token after", milliseconds(found["first_token_ms"])),
        ("tokens", f"{found['prompt_tokens']:,} asked, {found['completion_tokens']:,} answered"),
        ("use", _USES.get(found["side"], "held out to judge models")),
    ]
    facts(pairs)
    for name, why in found["flags"].items():
        chip(f"{name}: {why}" if why else name, "warn")
