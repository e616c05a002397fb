"""What annotators are told: the version in force, its history with what changed, and editing.

An edit is kept as it is typed. Publishing never writes over a version that came meanwhile unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from nicegui import ui

from tutelage.web.parts import words
from tutelage.web.parts.diff import summary, word_diff
from tutelage.web.parts.editor import Draft, draft_editor
from tutelage.web.parts.layout import Action, button, card, chip, confirm, empty, heading, notice
from tutelage.web.parts.text import passage, text
from tutelage.web.teach.fields import finish_typing
from tutelage.web.view import TEACH, Page, View
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_people import guidelines, set_guideline
from tutelage.workflows.people.kept import kept_text

_MAY_WRITE = ("expert", "engineer", "admin")
_FEW = 8  # versions that are looked through for a draft, and shown at once
_BEGIN = "What is asked, which labels or answers there are, and how to tell close ones apart."

Version = Mapping[str, Any]


class _Guideline:
    """The page: reading, editing and the versions, drawn anew when something was published."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._versions: list[dict[str, Any]] = []
        self._draft: Draft | None = None
        self._base: Version | None = None
        self._all = False
        heading(
            "Guideline", Action("Edit", self.edit, "edit", key="e"),
            note="What everybody who labels reads. Each answer remembers the version it had.",
        )  # fmt: skip
        self._box = ui.column().classes("w-full gap-4 items-stretch")

    async def draw(self, *, edit: bool = False, start: str | None = None) -> None:
        """Draw what is in force, or the editor where a draft was begun or is wanted."""
        ctx, user = self._view.context, self._view.user.name
        self._versions = await self._view.call(guidelines, ctx)
        newest = self._versions[0] if self._versions else None
        begun = await self._view.call(_begun, ctx, user, self._versions)
        self._draft = None
        self._box.clear()
        with self._box:
            if edit or begun is not None:
                base, typed = begun if begun is not None else (newest, None)
                self._edit(newest, base, start if start is not None else typed)
            elif newest is None:
                action = Action("Write the guideline", self.edit, "edit", "main", "e")
                empty("There is no guideline yet. It is shown beside every item that is labelled.",
                      action=action)  # fmt: skip
            else:
                with card(f"Version {newest['version']}, in force"):
                    _by(newest)
                    passage(newest["text"])
            self._history()

    async def edit(self) -> None:
        """Open the editor."""
        if self._draft is None:
            await self.draw(edit=True)

    async def restore(self, version: Version) -> None:
        """Put an earlier text into the editor, to be published as a new version."""
        if self._draft is not None and self._draft.value.strip():
            if not await confirm("Replace what you are writing with this version?"):
                return
            self._draft.element.set_value(version["text"])
            return
        await self.draw(edit=True, start=version["text"])

    async def publish(self, note: str) -> None:
        """Keep the text as a new version that is in force at once."""
        self._view.require(*_MAY_WRITE)
        if self._draft is None:
            return
        await self._draft.flush()
        ctx = self._view.context
        now = await self._view.call(guidelines, ctx)
        seen = self._versions[0]["version"] if self._versions else None
        if now and now[0]["version"] != seen:
            self._view.tell("Somebody published a version meanwhile; look at it first", "warn")
            await self.draw(edit=True)
            return
        typed = self._draft.value
        version = await self._view.call(
            partial(set_guideline, ctx, typed, note=note, author=self._view.user.name)
        )
        await self._draft.forget()
        self._view.audit("guideline.publish", version=str(version))
        self._view.tell(f"Version {version} is in force", "good")
        await self.draw()

    async def discard(self) -> None:
        """Drop what was written."""
        if self._draft is not None and await confirm("Throw this draft away?", danger=True):
            await self._draft.forget()
            await self.draw()

    def _edit(self, newest: Version | None, base: Version | None, typed: str | None) -> None:
        before = str(base["text"]) if base is not None else ""
        with card("Your draft"):
            if base is not None and newest is not None and base["version"] != newest["version"]:
                notice(
                    f"You began this on version {base['version']}. Version {newest['version']} "
                    "was published since: carry over what is new there.", "warn",
                )  # fmt: skip
            now = str(newest["text"]) if newest is not None else ""
            value = typed if typed is not None else before
            self._draft = draft_editor(
                self._view, item=_key(base), value=value, label="The guideline", rows=14,
                on_change=lambda new: self._changed(changes, now, new),
            )  # fmt: skip
            if newest is None:
                text("p", _BEGIN, "tt-muted")
            note = ui.input("What changed, in a few words").classes("w-full")

            async def publish() -> None:
                await finish_typing()
                await self.publish(str(note.value or ""))

            with ui.row().classes("gap-2"):
                button(Action("Publish", publish, "publish", "main", "ctrl+Enter"))
                button(Action("Throw away", self.discard, "delete"))
            self._view.keys({"ctrl+Enter": ("Publish the draft", publish)})
            text("h3", "What changes")
            changes = ui.element("div")
            self._changed(changes, now, value)

    def _changed(self, box: ui.element, old: str, new: str) -> None:
        box.clear()
        with box:
            text("p", summary(old, new), "tt-muted")
            word_diff(old, new)

    def _history(self) -> None:
        if len(self._versions) < 2 and self._draft is None:
            return
        with card("Versions"):
            shown = self._versions if self._all else self._versions[:_FEW]
            for place, one in enumerate(shown):
                older = self._versions[place + 1] if place + 1 < len(self._versions) else None
                self._version(one, older, newest=place == 0)
            if len(shown) < len(self._versions):
                rest = len(self._versions) - len(shown)
                button(Action(f"Show {rest} more", self._show_all))

    def _version(self, one: Version, older: Version | None, *, newest: bool) -> None:
        before = str(older["text"]) if older is not None else None
        name = f"Version {one['version']}: {words.short(one['note'], 60) or 'no note'}"
        with ui.expansion(name).classes("w-full").props("dense") as fold:
            _by(one)
            box = ui.column().classes("w-full")
            if newest:
                chip("in force", "good")
            else:
                button(Action("Use this text again", partial(self.restore, one), "restore"))
        fold.on_value_change(
            lambda event: _unfold(box, before, str(one["text"])) if event.value else None
        )

    async def _show_all(self) -> None:
        self._all = True
        await self.draw(edit=self._draft is not None)


def _unfold(box: ui.element, before: str | None, after: str) -> None:
    """Draw what a version changed, once; of the first, what it said."""
    if box.default_slot.children:
        return
    with box:
        if before is None:
            passage(after)
        else:
            text("p", f"Against the version before: {summary(before, after)}", "tt-muted")
            word_diff(before, after)


def _by(one: Version) -> None:
    who = f"by {one['author']}" if one["author"] else "author not named"
    text("p", f"{who}, {str(one['at'])[:16].replace('T', ' ')} UTC", "tt-muted")


def _key(base: Version | None) -> str:
    return f"guideline:{base['version'] if base is not None else 0}"


def _begun(
    ctx: Context, person: str, versions: list[dict[str, Any]]
) -> tuple[Version | None, str] | None:
    """Return the newest draft of a person with the version it began from."""
    for base in [*versions[:_FEW], None]:
        kept = kept_text(ctx, person, _key(base))
        if kept is not None:
            return base, kept.text
    return None


async def show(view: View) -> None:
    """Draw the page."""
    page = _Guideline(view)
    view.keys({"e": ("Edit the guideline", page.edit)})
    await page.draw()


PAGES = (
    Page("/guidelines", "Guideline", show, roles=TEACH, group="Teach", icon="menu_book", key="k"),
)
