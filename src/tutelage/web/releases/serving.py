"""Which release a deployment answers with, and the two ways to change it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from tutelage.release.rollout import ACTIVE
from tutelage.web.parts import layout
from tutelage.web.parts.cells import Cell, cell_table
from tutelage.web.parts.layout import Kind
from tutelage.web.parts.text import text
from tutelage.web.view import View
from tutelage.workflows.release import rollout

_ROLES: dict[str, tuple[str, Kind]] = {
    "stable": ("stable", "good"),
    "candidate": ("candidate", "warn"),
    "before": ("stable before", "idle"),
}


def serves_chips(serves: Sequence[Mapping[str, Any]]) -> None:
    """Draw what a release serves, a chip each; a dash if nothing."""
    if not serves:
        text("span", "–")
        return
    with ui.row().classes("gap-1"):
        for one in serves:
            word, kind = _ROLES[one["role"]]
            share = f", {one['percent']:g} %" if one["role"] == "candidate" else ""
            layout.chip(f"{one['deployment']}: {word}{share}", kind)


def deployments(view: View, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw every deployment with who answers, who did before, and the way back."""
    if not rows:
        layout.empty("Nothing is deployed yet.", command="tutelage up")
        return
    lines = [_line(view, row) for row in rows]
    headers = ("Deployment", "Answers", "Before", "Newest rollout", "Back")
    cell_table(headers, lines, name="Deployments")


def _line(view: View, row: Mapping[str, Any]) -> list[Cell]:
    async def back() -> None:
        await roll_back(view, row)

    def way() -> None:
        if not row["previous"] or not view.can("operator"):
            text("span", "–")
            return
        button = ui.button("Roll back", icon="undo", on_click=back).props('outline padding="xs sm"')
        button.props["aria-label"] = f"Roll {row['name']} back to {row['previous']}"

    return [
        lambda: ui.link(row["name"], "/deployments"),
        row["stable"] or "–",
        row["previous"] or "–",
        row["rollout"] or "–",
        way,
    ]


async def roll_back(view: View, row: Mapping[str, Any]) -> None:
    """Ask, and return a deployment to the release before, if it is as it was shown."""
    view.require("operator")
    under_way = row["rollout"] in ACTIVE
    question = (
        f"End the rollout under way? {row['stable']} answers every request to {row['name']}."
        if under_way
        else f"Let {row['previous']} answer every request to {row['name']} again, in place of "
        f"{row['stable']}?"
    )
    if not await layout.confirm(question, yes="Roll back", danger=True):
        return
    view.require("operator")
    to = row["stable"] if under_way else row["previous"]
    done = await view.attempt(
        rollout.rollback, view.context, row["name"], rollout=row["rollout_id"], to=to
    )
    if done is not None:
        view.audit("release.rolled_back", deployment=row["name"], release=str(done["stable"]))
        view.tell(f"{done['sentence']}.", "good")
        ui.navigate.reload()


async def promote(view: View, release: str, names: Sequence[str]) -> None:
    """Ask which deployment, and let the release answer all of its requests at once."""
    view.require("operator")
    with ui.dialog() as dialog, ui.card().classes("tt-card tt-question"):
        dialog.props["aria-label"] = f"Promote {release}"
        text("h2", f"Promote {release}")
        text("p", "It answers every request at once, without a trial. A rollout tries it on a part "
                  "of the traffic first and takes it back if live figures get worse.")  # fmt: skip
        options = list(names) or [view.context.config.name]
        where = ui.select(options, value=options[0], label="Deployment").classes("w-full")

        async def press() -> None:
            view.require("operator")
            button.disable()
            done = await view.attempt(
                rollout.switch, view.context, release, deployment=str(where.value)
            )
            if done is None:
                button.enable()
                return
            view.audit("release.promoted", release=release, deployment=str(where.value))
            dialog.close()
            ui.navigate.reload()

        with ui.row().classes("tt-actions"):
            ui.button("Cancel", on_click=dialog.close).props("flat")
            button = ui.button("Promote", on_click=press, color="negative")
    dialog.on("hide", dialog.delete)
    dialog.open()
