"""Prompts: every version, a new one being written, one with its test, review, publication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from tutelage.release import prompts as versions
from tutelage.web.evaluations.start import AtWork
from tutelage.web.operate.states import at
from tutelage.web.parts import diff, layout
from tutelage.web.parts.cells import Cell, cell_table
from tutelage.web.parts.layout import Action
from tutelage.web.parts.text import passage, text
from tutelage.web.parts.words import when
from tutelage.web.prompts.moves import Moves
from tutelage.web.prompts.tested import evidence
from tutelage.web.prompts.words import ACTIONS, outcome_chip, state_chip
from tutelage.web.prompts.writing import Writing
from tutelage.web.view import BUILD, Page, View
from tutelage.workflows.release import prompt

_WORK = "Test of a prompt"


async def show(view: View) -> None:
    """Draw what is in force, every version, and the editor of a new one."""
    found = await view.call(prompt.standing, view.context)
    rows = found["versions"]
    layout.heading(
        "Prompts", note="A version never changes. It is tested, reviewed and published with a "
        "note, and what was published can be published again."
    )  # fmt: skip
    await AtWork(view, "prompt", what=_WORK).show()
    if found["told"]:
        layout.notice(found["told"].capitalize() + ".", "info")
    with layout.card("Versions"):
        if rows:
            cell_table(
                ("Version", "State", "Test", "Note", "Made"), [_line(row) for row in rows],
                name="Versions of the prompt",
            )  # fmt: skip
        else:
            layout.empty("There is no version yet. Keep a first draft below.")
    told = f"version {found['in_force']}" if found["in_force"] else "the prompt in tutelage.yaml"
    begin = view.request.query_params.get("from")
    text_of = {str(row["number"]): row["text"] for row in rows}
    writing = Writing(view, found["text"], told, text_of.get(begin or ""))
    await writing.show()
    view.keys({"ctrl+Enter": ("Keep as a draft", writing.keep)})


async def one(view: View, version: str) -> None:
    """Draw one version: what it changes, its test, what happened to it, what can be done."""
    row = await view.call(versions.show, view.context.store, version)
    public = await view.call(versions.published, view.context.store)
    moves = Moves(view, row, public.hash if public else None)
    actions, keys = _actions(row, moves)
    layout.heading(f"Prompt, version {row['number']}", *actions, note=row["note"])

    async def again(_: Any) -> None:
        ui.navigate.to(f"/prompts/{row['number']}")

    await AtWork(view, "prompt", what=_WORK, on_end=again).show()
    with ui.row().classes("gap-2"):
        state_chip(row["state"])
        outcome_chip(row["test"])
    await _text(view, row, public.number if public else None)
    with layout.card("Test"):
        document = await view.call(prompt.trial_of, view.context, row["hash"])
        if document is not None:
            evidence(document)
        elif row["test"]:
            text("p", row["test"].get("sentence") or "")
            text("p", "The rows of this test are not there any more.", "tt-muted")
        else:
            layout.empty(
                "It has not been tested yet. A test lets it answer beside the published version.",
                command=f"tutelage prompt test {row['number']}",
            )
    with layout.card("What happened to it"):
        _journal(row["events"])
    view.keys(keys)


def _line(row: Mapping[str, Any]) -> list[Cell]:
    return [
        lambda: ui.link(f"Version {row['number']}", f"/prompts/{row['number']}"),
        lambda: state_chip(row["state"]),
        lambda: outcome_chip(row["test"]),
        row["note"],
        when(at(row["created_at"])),
    ]


def _actions(
    row: Mapping[str, Any], moves: Moves
) -> tuple[list[Action], dict[str, tuple[str, Any]]]:
    """Return what can be done to a version, as buttons and as keys."""
    state = row["state"]
    found: list[Action] = []
    found.append(Action("Write a new one from it", f"/prompts?from={row['number']}", "edit"))
    if state == "published":
        return found, {}
    if state == "retired":
        found.append(Action("Publish again", moves.restore, "restore", "main", "p"))
    else:
        found.append(Action("Test", moves.test, "science", key="t"))
        if row["test"] and state != "approved":
            found.append(Action("Approve", lambda: moves.review(True), "thumb_up", key="a"))
        if state != "rejected":
            found.append(Action("Reject", lambda: moves.review(False), "thumb_down", key="r"))
        found.append(Action("Publish", moves.publish, "publish", "main", "p"))
    return found, {action.key: (action.text, action.do) for action in found if action.key}


async def _text(view: View, row: Mapping[str, Any], public: int | None) -> None:
    """Draw the text, and what it changes against a version of one's choice."""
    rows = await view.call(versions.listing, view.context.store)
    texts = {one["number"]: one["text"] for one in rows if one["number"] != row["number"]}
    parent = next((one["number"] for one in rows if one["hash"] == row["parent"]), None)
    first = parent if parent in texts else public if public in texts else next(iter(texts), None)
    with layout.card("Text"):
        passage(row["text"])
    if first is None:
        return
    with layout.card("What it changes"):
        names = {number: f"version {number}" for number in texts}
        choice = ui.select(names, value=first, label="Against").classes("w-48")
        said = text("p", "", "tt-muted")
        box = ui.element("div")

        def draw() -> None:
            said.set_text(diff.summary(texts[choice.value], row["text"]).capitalize() + ".")
            box.clear()
            with box:
                diff.word_diff(texts[choice.value], row["text"])

        choice.on_value_change(draw)
        draw()


def _journal(events: Sequence[Mapping[str, Any]]) -> None:
    rows: list[list[Cell]] = [
        [
            when(at(event["at"])),
            f"{event['by'] or 'somebody'} {ACTIONS.get(event['action'], event['action'])}",
            event["note"] or str((event["evidence"] or {}).get("sentence") or ""),
        ]
        for event in reversed(events)
    ]
    cell_table(("When", "Who did what", "Why"), rows, name="Journal of this version")


PAGES = (
    Page("/prompts", "Prompts", show, BUILD, "Build", "edit_note", "p"),
    Page("/prompts/{version}", "Prompt", one, BUILD),
)
