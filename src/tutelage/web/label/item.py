"""Draws the item on the desk: why it is here, what is asked, and the means to answer it.

Everything a person can press has a key, shown on it. Texts are drawn as text.
"""

from __future__ import annotations

from functools import partial

from nicegui import ui

from tutelage.web.label import keys
from tutelage.web.label.desk import Desk
from tutelage.web.label.hiding import ask_to_hide
from tutelage.web.parts import words
from tutelage.web.parts.diff import summary, word_diff
from tutelage.web.parts.editor import Draft, draft_editor
from tutelage.web.parts.layout import Action, button, card, chip, empty, notice
from tutelage.web.parts.text import text
from tutelage.web.teach.conversation import conversation
from tutelage.workflows.data.experts import Shown
from tutelage.workflows.data.experts_answer import is_labelled
from tutelage.workflows.data.experts_typed import keep_typed

_MANY = 18  # labels from which on there is a field to find one


class ItemPart:
    """The middle of the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._labelled = is_labelled(desk.view.context.config)
        self._find: ui.input | None = None
        self._buttons: dict[str, ui.element] = {}
        self._unsure: ui.checkbox | None = None
        self._diff: ui.element | None = None
        self._labels: list[str] = []
        self.box = ui.element("div").classes("tt-desk-main")

    def draw(self) -> None:
        """Draw the item anew, or that there is none."""
        self.box.clear()
        self._find = self._unsure = self._diff = None
        self._buttons = {}
        shown = self._desk.shown
        with self.box:
            seen = partial(self._desk.seen, self._desk.work.key)
            mark = ui.element("div").classes("hidden")
            mark.on("vnodeMounted", seen, js_handler="() => emit()")
            if shown is None:
                self._nothing()
                return
            self._asked(shown)
            self._answer(shown)
        self._bind(shown)

    def _asked(self, shown: Shown) -> None:
        queue = self._desk.queue
        done = queue.done + queue.skipped
        title = f"Item {done + 1:,} of {done + queue.left + queue.anyone:,}"
        with card(title if self._desk.work.before is None else "An item you answered"):
            with ui.element("div").classes("tt-reasons"):
                text("h3", "Why it is here")
                with ui.element("ul"):
                    for why in shown.why:
                        text("li", why)
            box = ui.element("div").classes("tt-item").props('role="region" tabindex="0"')
            box.props["aria-label"] = "What is asked"
            with box:
                conversation(shown.messages)

    def _answer(self, shown: Shown) -> None:
        work = self._desk.work
        with card("Your answer"):
            if work.before is not None:
                said = work.before.label or words.short(work.before.answer or "", 80)
                notice(f"You said: {said or 'skipped'}. A new answer takes its place.")
            if self._labelled:
                self._label_buttons(shown)
            else:
                self._text(shown)
            self._comment(shown)
            self._actions(shown)

    def _label_buttons(self, shown: Shown) -> None:
        desk, drafted = self._desk, (shown.draft or {}).get("label")
        if shown.draft is not None:
            with ui.row().classes("gap-2 items-center"):
                chip("Draft", "info")
                text("span", f"{shown.draft['model']} suggests {drafted or shown.draft['text']}")
                if shown.labels and drafted:
                    accept = desk.does(self.accept)
                    self._press("Accept the draft", accept, "check", keys.ACCEPT, True)
        if not shown.labels:
            self._text(shown, "The label")
            return
        if len(shown.labels) > _MANY:
            self._find = ui.input("Find a label", on_change=self._filter)
            self._find.classes("w-full").props("clearable debounce=120")
            self._find.props["data-tt-focus"] = keys.FIND
            self._find.on("keydown.enter", desk.does(self._first_found))
            self._find.on("keydown.escape", js_handler="(e) => e.target.blur()")
        by_label = keys.label_keys(shown.labels)
        box = ui.element("div").classes("tt-labels").props('role="group" aria-label="Labels"')
        if self._find is not None:
            box.classes("tt-labels-many")
        with box:
            for label in shown.labels:
                self._buttons[label] = self._label(label, by_label.get(label), label == drafted)

    def _label(self, label: str, key: str | None, drafted: bool) -> ui.element:
        with ui.element("button").props('type="button"').classes("tt-label") as made:
            text("span", label)
            if drafted:
                chip("draft", "info")
                made.classes("tt-label-drafted")
            if label == self._desk.work.was:
                chip("you said", "idle")
            if key:
                text("kbd", key).props('aria-hidden="true"')
        made.on("click", self._desk.does(partial(self._desk.give, label)))
        return made

    def _text(self, shown: Shown, name: str = "The right answer") -> None:
        drafted = str((shown.draft or {}).get("text", ""))
        start = shown.typed.get("answer", drafted)
        if shown.draft is not None:
            with ui.row().classes("gap-2 items-center"):
                chip("Draft", "info")
                text("span", f"by {shown.draft['model']}: correct it here", "tt-muted")
        work = self._desk.work
        work.answer = self._editor(shown, "answer", start, name, 1 if self._labelled else 6)
        if shown.draft is not None and not self._labelled:
            self._diff = ui.element("div").props('role="region" aria-label="Against the draft"')
            self._diff.classes("w-full").style("min-height: 3rem")
            self._compare(drafted, start)

    def _editor(self, shown: Shown, field: str, value: str, name: str, rows: int) -> Draft:
        desk = self._desk
        own = desk.name == desk.view.user.name
        item = f"label:{shown.item}:{field}" if own else f"label:{shown.item}:{desk.name}:{field}"

        def save(typed: str) -> None:
            keep_typed(desk.view.context, desk.name, shown.item, **{field: typed})

        def changed(typed: str) -> None:
            desk.work.touched.add(field)
            if field == "answer" and self._diff is not None and shown.draft is not None:
                self._compare(str(shown.draft["text"]), typed)

        made = draft_editor(
            desk.view, item=item, value=value, save=save, label=name, on_change=changed, rows=rows
        )
        made.element.on("keydown.escape", js_handler="(e) => e.target.blur()")
        made.element.props["data-tt-focus"] = keys.WRITE if field == "answer" else keys.COMMENT
        if rows > 1:
            made.element.props('input-style="min-height: 7rem"')
        return made

    def _compare(self, drafted: str, typed: str) -> None:
        if self._diff is None:
            return
        self._diff.clear()
        with self._diff:
            text("div", f"Against the draft: {summary(drafted, typed)}", "tt-muted")
            if drafted != typed:
                word_diff(drafted, typed)

    def _comment(self, shown: Shown) -> None:
        desk = self._desk
        comment = shown.typed.get("comment", "")
        desk.work.comment = self._editor(shown, "comment", comment, "Comment (may be empty)", 1)

        def toggled() -> None:
            desk.work.unsure = bool(box.value)

        with ui.row().classes("items-center gap-2"):
            box = ui.checkbox("I am not sure", value=desk.work.unsure, on_change=toggled)
            text("kbd", keys.UNSURE).props('aria-hidden="true"')
        self._unsure = box

    def _actions(self, shown: Shown) -> None:
        desk = self._desk
        with ui.row().classes("tt-actions"):
            if desk.work.answer is not None:
                self._press("Save", desk.does(self.accept), "check", keys.SAVE, True)
            self._press("Skip", desk.does(partial(desk.give, skip=True)), "skip_next", keys.SKIP)
            self._press("Hide words", desk.does(self.hide), "visibility_off", keys.HIDE)
            self._press("Undo", desk.does(desk.back), "undo", keys.BACK)

    def _press(self, name: str, do: object, icon: str, key: str, main: bool = False) -> None:
        shown = "Ctrl Enter" if key == keys.SAVE else key
        button(Action(name, do, icon, "main" if main else "plain", shown))  # type: ignore[arg-type]

    async def accept(self) -> None:
        """Give what the draft says, or what stands in the editor."""
        desk, shown = self._desk, self._desk.shown
        if shown is None:
            return
        if desk.work.answer is not None:
            await desk.give()
        elif shown.draft is not None and shown.draft["label"]:
            await desk.give(str(shown.draft["label"]))
        else:
            desk.view.tell("There is no draft to accept: choose a label")

    async def save(self) -> None:
        """Do the same out of the middle of a text."""
        await self._desk.leave()
        await self.accept()

    async def hide(self) -> None:
        """Ask which words are an identifier and hide them."""
        asked = await ask_to_hide(self._desk.view)
        if asked is not None:
            await self._desk.hide(*asked)

    def _filter(self) -> None:
        wanted = str((self._find.value if self._find else "") or "").casefold().strip()
        for label, made in self._buttons.items():
            made.set_visibility(wanted in label.casefold())

    async def _first_found(self) -> None:
        found = [label for label, made in self._buttons.items() if made.visible]
        if self._find is not None and self._find.value and found:
            await self._desk.give(found[0])

    def _nothing(self) -> None:
        queue = self._desk.queue
        done = words.count(queue.done + queue.skipped, "item")
        if queue.done + queue.skipped:
            empty(f"That was the last one: you went through {done}. Thank you.")
        else:
            empty(
                f"Nothing was given to {self._desk.name} yet. Whoever prepares the data gives "
                "items out.",
                "tutelage data label assign --to NAME",
                Action("Give items out", "/label/give", "playlist_add"),
            )
        if queue.done + queue.skipped:
            button(Action("Undo the last answer", self._desk.does(self._desk.back), "undo",
                          key=keys.BACK))  # fmt: skip

    def _bind(self, shown: Shown) -> None:
        desk = self._desk
        bound = {
            key: (f"Label: {label}", desk.does(partial(desk.give, label)))
            for label, key in keys.label_keys(shown.labels).items()
            if self._labelled
        }
        accept = "Accept the draft" if self._labelled else "Save the answer as it stands"
        bound |= {
            keys.ACCEPT: (accept, desk.does(self.accept)),
            keys.SAVE: ("Save while typing", desk.does(self.save)),
            keys.SKIP: ("Skip", desk.does(partial(desk.give, skip=True))),
            keys.UNSURE: ("Not sure, or sure again", self._flip),
            keys.COMMENT: ("Write a comment; Escape leaves it", self._to_comment),
            keys.HIDE: ("Hide the marked words as an identifier", desk.does(self.hide)),
            keys.BACK: ("Undo", desk.does(desk.back)),
        }
        if desk.work.answer is not None:
            bound[keys.WRITE] = ("Write; Escape leaves the text", self._to_answer)
        if self._find is not None:
            bound[keys.FIND] = ("Find a label; Enter gives the first", self._to_find)
        desk.view.keys(bound)

    def _flip(self) -> None:
        if self._unsure is not None:
            self._unsure.set_value(not self._unsure.value)

    def _to_comment(self) -> None:
        if self._desk.work.comment is not None:
            self._desk.work.comment.element.run_method("focus")

    def _to_answer(self) -> None:
        if self._desk.work.answer is not None:
            self._desk.work.answer.element.run_method("focus")

    def _to_find(self) -> None:
        if self._find is not None:
            self._find.run_method("focus")
