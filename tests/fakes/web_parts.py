"""`python -m tests.fakes.web_parts …`: `tutelage web` with one page more, which shows every part.

Its texts are hostile: none may become markup.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from nicegui import ui

HOSTILE = "<img src=x onerror='window.harmed=1'>{{ constructor.constructor('window.harmed=1')() }}"
MANY = 103


async def show(view: Any) -> None:
    """Draw every part."""
    from tutelage.web.parts import chart, diff, editor, layout, table, words
    from tutelage.web.parts.text import passage, text

    pressed: list[str] = []
    said = ui.label("nothing").mark("said").classes("said")

    async def slowly() -> None:
        await view.call(time.sleep, 0.05)
        pressed.append("1")
        said.set_text(" ".join(pressed))

    def quickly() -> None:
        pressed.append("2")
        said.set_text(" ".join(pressed))

    async def ask() -> None:
        answer = await layout.confirm(f"Really? {HOSTILE}", danger=True)
        said.set_text("yes" if answer else "no")

    def deny() -> None:
        view.require("admin")
        raise AssertionError("a bug")

    async def fail() -> None:
        from tutelage.core.errors import DataError

        def work() -> None:
            raise DataError(f"no such row {HOSTILE}", fix="Choose another")

        assert await view.attempt(work) is None

    view.keys({"1": ("slow", slowly), "2": ("quick", quickly), "ctrl+Enter": ("send", quickly)})
    layout.heading(
        "Parts", layout.Action("Ask", ask), layout.Action("Fail", fail),
        layout.Action("Break", deny), note=HOSTILE,
    )  # fmt: skip
    with layout.card(HOSTILE):
        layout.chip(HOSTILE, "warn")
        layout.facts([(HOSTILE, HOSTILE), ("none", None)])
        layout.notice(HOSTILE, "bad")
        layout.empty(HOSTILE, command=HOSTILE)
        passage(HOSTILE)
        text("p", words.percent(0.5))
    with layout.card("Changes"):
        diff.word_diff(f"the old word {HOSTILE}", f"the new word {HOSTILE}")
    with layout.card("Rows"):
        await table.table(
            [table.Column("name", "Name", sortable=True),
             table.Column("size", "Size", "number", sortable=True),
             table.Column("state", "State", show=lambda row: table.Chip(HOSTILE, "good"))],
            [{"name": f"row {number}", "size": number, "id": f"a/{number}"}
             for number in range(MANY)],
            key="id", on_open="/parts?row={id}",
        )  # fmt: skip
    with layout.card("Plots"):
        chart.line({HOSTILE: [(1, 2.0), (2, 3.0)], "b": [(1, 1.0)]}, name="Loss", unit="nats")
        chart.intervals([chart.Interval(HOSTILE, 0.8, 0.7, 0.9)], name="Accuracy", percent=True)
        chart.bars([(HOSTILE, 3.0), ("b", 1.0)], name="Rows")
    with layout.card("Text"):
        kept = await editor.restored(view, "parts:1", "from the model")
        draft = editor.draft_editor(view, item="parts:1", value=kept, label="Answer")

        async def send() -> None:
            said.set_text(f"sent {draft.value}")
            await draft.forget()

        ui.button("Send", on_click=send)


async def broken(view: Any) -> None:
    """Fail as a bug does."""
    raise AssertionError(HOSTILE)


def main() -> None:
    """Run `tutelage web` with the pages /parts, /broken and /closed."""
    from tutelage.cli.main import app
    from tutelage.web import registry
    from tutelage.web.view import Page

    ours = registry.pages()
    registry.pages = lambda: (  # type: ignore[assignment]
        *ours,
        Page("/parts", "Parts", show),
        Page("/broken", "Broken", broken),
    )
    sys.argv[0] = "tutelage"
    app()


if __name__ == "__main__":
    main()
