"""Releases: the list, one with its card, lineage and checks; lineage of an answer; the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from nicegui import background_tasks, ui

from tutelage.web.evaluations.verdicts import verdict_chip
from tutelage.web.parts import layout, words
from tutelage.web.parts.cells import Cell, cell_table
from tutelage.web.parts.layout import Action
from tutelage.web.parts.text import text
from tutelage.web.releases.card_text import card_text
from tutelage.web.releases.serving import deployments, promote, serves_chips
from tutelage.web.releases.tree import lineage
from tutelage.web.view import BUILD, OPERATE, Page, View
from tutelage.workflows.release import release
from tutelage.workflows.release.release_lineage import resolve, trace
from tutelage.workflows.release.release_overview import overview
from tutelage.workflows.release.release_verify import verify

_WHO = BUILD | OPERATE
_HEADERS = ("Release", "Serves", "Kind", "Verdict", "Prompt", "Registry", "Made")


async def show(view: View) -> None:
    """Draw the deployments, every release, and the way from an answer to its lineage."""
    found = await view.call(overview, view.context)
    layout.heading(
        "Releases", note="Base model, adapter, prompt and decoding as one thing, identified by the "
        "hash of all that. It never changes; what moves is which one answers."
    )  # fmt: skip
    with layout.card("Deployments"):
        deployments(view, found["deployments"])
    with layout.card("Every release"):
        if found["releases"]:
            cell_table(_HEADERS, [_line(row) for row in found["releases"]], name="Releases")
        else:
            layout.empty(
                "There is no release yet. One is made of an adapter whose evaluation passes.",
                command="tutelage release create",
            )
    with layout.card("Where an answer comes from"), ui.row().classes("items-center gap-3 w-full"):
        what = ui.input("Id of an answer, a release or any output").classes("grow")

        def go() -> None:
            if what.value:
                ui.navigate.to(f"/lineage/{quote(str(what.value).strip(), safe='')}")

        what.on("keydown.enter", go)
        ui.button("Trace it", icon="account_tree", on_click=go)


async def one(view: View, name: str) -> None:
    """Draw one release: what it is made of, where it comes from, its card, whether it is whole."""
    about = await view.call(release.describe, view.context, name)
    found = await view.call(overview, view.context)
    row = next(each for each in found["releases"] if each["id"] == about["id"])
    names = [each["name"] for each in found["deployments"]]

    async def move() -> None:
        await promote(view, row["name"], names)

    async def check() -> None:
        await _check(view, row["name"], box)

    actions = [Action("Check every hash", check, "verified", key="v")]
    keys: dict[str, tuple[str, Any]] = {"v": ("Check every hash", check)}
    if view.can("operator"):
        actions.append(Action("Promote", move, "rocket_launch", "main", "p"))
        keys["p"] = ("Promote", move)
    layout.heading(f"Release {row['name']}", *actions, note=f"made {words.ago(row['made_at'])}")
    box = ui.element("div").classes("w-full")
    box.visible = False
    with layout.card("What it is made of"):
        layout.facts(_facts(about, row))
    with layout.card("Where it comes from"):
        _lineage(view, row["name"])
    if about["card"]:
        with layout.card("Model card"):
            card_text(about["card"])
    view.keys(keys)


async def traced(view: View, what: str) -> None:
    """Draw where an answer, a release or any output comes from."""
    await view.call(resolve, view.context, what)
    back = Action("Releases", "/releases", "arrow_back")
    layout.heading("Where it comes from", back, note=what)
    with layout.card():
        _lineage(view, what)


def _line(row: Mapping[str, Any]) -> list[Cell]:
    return [
        lambda: ui.link(row["name"], f"/releases/{quote(row['name'], safe='')}"),
        lambda: serves_chips(row["serves"]),
        row["kind"],
        lambda: verdict_chip(row["verdict"]),
        f"version {row['prompt']}" if row["prompt"] else "–",
        f"version {row['registry_version']}" if row["registry_version"] else "–",
        words.ago(row["made_at"]),
    ]


def _facts(about: Mapping[str, Any], row: Mapping[str, Any]) -> list[tuple[str, object]]:
    def linked(words_of: str, path: str) -> Any:
        return lambda: ui.link(words_of, path)

    evaluation, prompt = row["evaluation"], row["prompt"]
    facts: list[tuple[str, object]] = [
        ("Id", about["id"]),
        ("Kind", about["kind"]),
        ("Serves", lambda: serves_chips(row["serves"])),
        ("Base model", about["base"]),
        ("Adapter", about["adapter"]),
        ("Prompt", linked(f"version {prompt}", f"/prompts/{prompt}") if prompt else "none"),
        ("Decoding", about["decoding"]),
        ("Golden set", about["golden"]),
        ("Evaluation", linked(evaluation[:12], f"/evaluations/{evaluation[:12]}")
         if evaluation else "none"),
        ("Verdict", lambda: verdict_chip(row["verdict"])),
        ("Registry", about["registry"]),
    ]  # fmt: skip
    return facts


def _lineage(view: View, what: str) -> None:
    """Draw the place of a lineage; it comes when it is read: that goes through every train row."""
    place = ui.element("div").classes("w-full").style("min-height: 8rem")
    with place:
        ui.spinner()
    background_tasks.create(_trace(view, what, place), name="lineage", context=place)


async def _trace(view: View, what: str, place: ui.element) -> None:
    found = await view.attempt(trace, view.context, what)
    place.clear()
    with place:
        if found is None:
            text("p", "The lineage can't be read.")
        else:
            lineage(found["tree"])


async def _check(view: View, name: str, box: ui.element) -> None:
    box.clear()
    box.visible = True
    with box, layout.card("Checks"):
        ui.spinner()
    found = await view.attempt(verify, view.context, name)
    box.clear()
    box.visible = bool(found)
    if not found:
        return
    with box, layout.card("Checks"):
        whole = found[0]["ok"]
        said = "Everything is still what was released." if whole else "Something was changed."
        layout.notice(said, "good" if whole else "bad")
        rows = [_checked(check) for check in found[0]["checks"]]
        cell_table(("Part", "Is as released", "Why not"), rows, name="Checks by hash")


def _checked(check: Mapping[str, Any]) -> list[Cell]:
    good = bool(check["ok"])
    return [
        check["part"],
        lambda: layout.chip("yes", "good") if good else layout.chip("changed", "bad"),
        check["why"],
    ]


PAGES = (
    Page("/releases", "Releases", show, _WHO, "Build", "inventory_2", "r"),
    Page("/releases/{name}", "Release", one, _WHO),
    Page("/lineage/{what}", "Lineage", traced, _WHO),
)
