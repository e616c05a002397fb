"""What may be done to a version: test, review, publish, restore. Each asks and is audited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nicegui import ui

from tutelage.web.parts import layout
from tutelage.web.parts.text import text
from tutelage.web.view import View
from tutelage.workflows import jobs
from tutelage.workflows.release import prompt


class Moves:
    """The moves of one version, as the person saw it; `seen` is what was published then."""

    def __init__(self, view: View, row: Mapping[str, Any], seen: str | None) -> None:
        self._view, self._row, self._seen = view, row, seen
        self._number = str(row["number"])

    async def test(self) -> None:
        """Ask how many rows, and start the test."""
        self._view.require("engineer")

        async def begin(rows: Any) -> bool:
            count = str(int(rows.value or 0))
            started = await self._view.attempt(
                jobs.start, self._view.context, "prompt", by=self._view.user.name,
                arguments=[self._number, "--rows", count, "--by", self._view.user.name],
            )  # fmt: skip
            if started is None:
                return False
            self._view.audit("prompt.tested", version=self._number, job=started, rows=count)
            self._view.tell("The test is at work.", "good")
            return True

        def fields() -> Any:
            text("p", "It answers the must-pass rows and the golden prompts of the stable release "
                      "beside the published version, with the same model.")  # fmt: skip
            return ui.number("Test rows besides those", value=50, min=0, precision=0)

        self._ask(f"Test version {self._number}", "Test", fields, begin)

    async def review(self, approve: bool) -> None:
        """Ask for a note, and approve or reject."""
        self._view.require("engineer")

        async def decide(note: Any) -> bool:
            done = await self._view.attempt(
                prompt.review, self._view.context, self._number, approve=approve,
                by=self._view.user.name, note=str(note.value or ""),
            )  # fmt: skip
            return self._done(done, "prompt.approved" if approve else "prompt.rejected")

        word = "Approve" if approve else "Reject"
        self._ask(f"{word} version {self._number}", word, lambda: ui.input("Note"), decide)

    async def publish(self) -> None:
        """Ask why, show what speaks for it, and publish."""
        self._view.require("engineer")
        test = self._row["test"]
        clean = bool(test) and test.get("outcome") != "regressed"
        clean = clean and self._row["state"] != "rejected"

        def fields() -> Any:
            said = test["sentence"] if test else "It has not been tested."
            layout.notice(said, "info" if clean else "warn")
            note = ui.input("Why", validation={"Say why": lambda v: bool(str(v or "").strip())})
            force = ui.checkbox("Publish all the same")
            force.set_visibility(not clean)
            return note, force

        async def decide(given: Any) -> bool:
            note, force = given
            done = await self._view.attempt(
                prompt.publish, self._view.context, self._number, note=str(note.value or ""),
                by=self._view.user.name, force=bool(force.value), seen=self._seen,
            )  # fmt: skip
            return self._done(done, "prompt.published")

        self._ask(f"Publish version {self._number}", "Publish", fields, decide)

    async def restore(self) -> None:
        """Ask for a note, and publish again what was published before."""
        self._view.require("engineer")

        async def decide(note: Any) -> bool:
            done = await self._view.attempt(
                prompt.restore, self._view.context, self._number, note=str(note.value or ""),
                by=self._view.user.name, seen=self._seen,
            )  # fmt: skip
            return self._done(done, "prompt.restored")

        title = f"Publish version {self._number} again"
        self._ask(title, "Publish again", lambda: ui.input("Why"), decide)

    def _done(self, row: Mapping[str, Any] | None, action: str) -> bool:
        if row is None:
            return False
        self._view.audit(action, version=self._number)
        ui.navigate.to(f"/prompts/{self._number}")
        return True

    def _ask(
        self, title: str, yes: str, fields: Callable[[], Any], decide: Callable[[Any], Any]
    ) -> None:
        """Open a question with its fields; it closes when `decide(fields)` says that it is done."""
        with ui.dialog() as dialog, ui.card().classes("tt-card tt-question"):
            dialog.props["aria-label"] = title
            text("h2", title)
            given = fields()

            async def press() -> None:
                self._view.require("engineer")
                button.disable()
                if await decide(given):
                    dialog.close()
                else:
                    button.enable()

            with ui.row().classes("tt-actions"):
                ui.button("Cancel", on_click=dialog.close).props("flat")
                button = ui.button(yes, on_click=press)
        dialog.on("hide", dialog.delete)
        dialog.open()
