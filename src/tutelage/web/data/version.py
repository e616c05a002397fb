"""One dataset version: report, leak certificate, lineage, its rows and those that were left out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from nicegui import ui

from tutelage.release.bundle import list_releases
from tutelage.web.data.row import show_row
from tutelage.web.parts.chart import bars
from tutelage.web.parts.layout import (
    Action,
    card,
    chip,
    empty,
    facts,
    figure,
    grid,
    heading,
    notice,
)
from tutelage.web.parts.table import Column, Query, Rows, Table, plain_table, table
from tutelage.web.parts.text import text
from tutelage.web.parts.words import count, number, short
from tutelage.web.runs.start import run_path
from tutelage.web.view import View
from tutelage.workflows.data import browse

_NAMES = {
    "train": "Train",
    "validation": "Validation",
    "test": "Test",
    "quarantine": "Quarantine",
    "dropped": "Left out",
}
_SIDES = {"train-test": "train and test", "train-validation": "train and validation",
          "validation-test": "validation and test"}  # fmt: skip
_MOST_LABELS = 20
_SHOWN = 240  # characters of a row's text in the table
_ROWS = (
    Column("id", "Row"),
    Column("label", "Label"),
    Column("input", "Input", wide=True),
    Column("answer", "Answer", wide=True),
    Column("source", "Source"),
)
_OUT = (
    Column("number", "No."),
    Column("place", "Where"),
    Column("reason", "Why", wide=True),
    Column("row", "Row", wide=True),
)


async def show_version(view: View, version: str) -> None:
    """Draw the version."""
    found = await view.call(browse.overview, view.context, version)
    manifest = found["manifest"]
    before = found["parents"][0] if found["parents"] else None
    actions = []
    if found["on_disk"]:
        if before:
            path = f"/data/{before}/to/{found['hash']}"
            actions.append(Action("What changed", path, icon="difference"))
        actions.append(
            Action("What is trained on", f"/data/{found['hash']}/tokens", icon="segment")
        )
        download = partial(_download, view, found["hash"])
        actions.append(Action("Download the report", download, icon="download"))
    note = "The current version" if found["current"] else "An earlier version"
    heading(f"Version {found['hash']}", *actions, note=note)
    if not manifest:
        _gone(found)
        return
    _figures(manifest)
    names = await view.call(_releases, view)
    with grid("30rem") as parts:
        parts.style("align-items: start")
        with ui.element("div").classes("tt-stack"):
            _leaks(manifest)
            _lineage(found, names)
        _labels(found["labels"])
    _findings(manifest)
    await _browse(view, found["hash"], manifest)


def _gone(found: Mapping[str, Any]) -> None:
    erased = found["erased"]
    if erased:
        after = erased["replaced_by"][:12]
        notice(
            f"Its rows were erased because a user asked to be forgotten. {after} took its place.",
            "warn",
        )
        ui.link(f"Version {after}", f"/data/{after}")
    else:
        empty("Its files are not on this disk.")


async def _download(view: View, version: str) -> None:
    path = browse.folder_of(view.context, version) / "report.html"
    data = await view.attempt(path.read_bytes)
    if data is not None:
        ui.download.content(data, f"dataset-{version}.html", "text/html")


def _figures(manifest: Mapping[str, Any]) -> None:
    lost = manifest.get("lost") or {}
    waiting = lost.get("quarantined", 0)
    with ui.row().classes("gap-8"):
        for side in ("train", "validation", "test"):
            figure(number(manifest["counts"].get(side, 0)), f"{side} rows")
        figure(number(waiting), "in quarantine", "warn" if waiting else "idle")
        figure(number(lost.get("dropped", 0)), "left out")


def _leaks(manifest: Mapping[str, Any]) -> None:
    with card("Leak certificate"):
        for name, leak in (manifest.get("leaks") or {"train-test": manifest["leak"]}).items():
            found = leak["near"] + (leak.get("semantic") or 0)
            with ui.row().classes("items-start gap-2 no-wrap w-full"):
                chip("leaks" if found else "no leak", "bad" if found else "good")
                text("span", _leak(name, leak))


def _leak(name: str, leak: Mapping[str, Any]) -> str:
    said = (
        f"Between {_SIDES.get(name, name)}: {leak['exact']} exact and {leak['near']} near twins "
        f"in {count(leak['test_rows'], 'row')} (cosine at least {leak['threshold']:g})"
    )
    if leak.get("semantic") is not None:
        said += f", {leak['semantic']} by meaning ({leak['embedder']})"
    return f"{said}."


def _labels(labels: Mapping[str, int]) -> None:
    with card("Labels, the rarest first"):
        if not labels:
            empty("These rows have no closed list of labels.")
            return
        rarest = sorted(labels.items(), key=lambda pair: (pair[1], pair[0]))
        shown = [(label, float(many)) for label, many in rarest[:_MOST_LABELS]]
        bars(shown, name="Rows by label", unit="rows", one="row")
        more = rarest[_MOST_LABELS:]
        if more:
            said = f"and {count(len(more), 'more label')} with {number(more[0][1])} rows or more"
            text("p", said, "tt-muted")


def _lineage(found: Mapping[str, Any], releases: Mapping[str, str]) -> None:
    with card("Where it comes from, where it went"):
        for parent in found["parents"]:
            ui.link(f"Made after version {parent}", f"/data/{parent}")
        sources = [("Source", f"{name}, SHA-256 {digest[:12]}")
                   for name, digest in found["sources"].items()]  # fmt: skip
        facts([*sources, ("Repairs in force", len(found["repairs"]))])
        if not found["used_by"]:
            text("p", "Nothing was made from it yet.", "tt-muted")
        for made in found["used_by"][:20]:
            name = releases.get(made["hash"], made["hash"])
            said = f"{made['kind'].replace('_', ' ').capitalize()} {name}"
            ui.link(said, _path(made["kind"], made["hash"]))


def _releases(view: View) -> dict[str, str]:
    """Return the names of releases by the first digits of their ids."""
    return {row.id[:12]: row.name for row in list_releases(view.context.store)}


def _path(kind: str, digest: str) -> str:
    places = {"evaluation": f"/evaluations/{digest}", "dataset": f"/data/{digest}"}
    if kind in ("adapter", "search"):
        return run_path(digest)
    return places.get(kind, f"/lineage/{digest}")


def _findings(manifest: Mapping[str, Any]) -> None:
    found = manifest.get("findings") or ()
    with card("Findings"):
        if not found:
            empty("Nothing was found that a person should look at.")
            return
        with ui.element("div").classes("tt-table-scroll").props("tabindex=0"):
            plain_table(
                ("severity", "what", "rows", "first", "what to do"),
                [
                    (
                        each["severity"],
                        f"{each['what']} ({each['id']})",
                        number(each["count"]),
                        _first(each),
                        each["fix"],
                    )
                    for each in found
                ],
                name="Findings",
            )


def _first(finding: Mapping[str, Any]) -> str:
    for example in finding.get("examples") or ():
        return short(f"{example.get('where', '')} {example.get('detail', '')}".strip(), 160)
    return "–"


async def _browse(view: View, version: str, manifest: Mapping[str, Any]) -> None:
    """Draw the rows, of one part at a time, with a search."""
    asked = {"part": "train", "text": ""}
    sizes = {**manifest["counts"], **_lost(manifest)}
    with card("Rows"):
        with ui.row().classes("items-center gap-4 w-full"):
            names = {part: f"{_NAMES[part]} ({sizes.get(part, 0):,})" for part in browse.PARTS}
            part = ui.select(names, value="train", label="Part").classes("w-56")
            words = ui.input("Find in the text").props("clearable debounce=300").classes("w-72")
        place = ui.element("div").classes("w-full")

    async def draw() -> None:
        place.clear()
        with place:
            await _table(view, version, asked["part"], asked["text"])

    async def turn() -> None:
        asked.update(part=str(part.value), text=str(words.value or ""))
        await draw()

    part.on_value_change(turn)
    words.on_value_change(turn)
    view.keys({"/": ("Find in the rows", lambda: words.run_method("focus"))})
    await draw()


def _lost(manifest: Mapping[str, Any]) -> dict[str, int]:
    lost = manifest.get("lost") or {}
    return {"quarantine": lost.get("quarantined", 0), "dropped": lost.get("dropped", 0)}


async def _table(view: View, version: str, part: str, words: str) -> Table:
    out = part in ("quarantine", "dropped")

    async def rows(query: Query) -> Rows:
        found = await view.call(
            browse.rows, view.context, version, part, start=query.offset, count=query.limit,
            text=words,
        )  # fmt: skip
        shape = _out_row if out else _row
        shaped = [shape(row, query.offset + n) for n, row in enumerate(found.rows, start=1)]
        return Rows(shaped, found.total)

    nothing = "No row holds these words." if words else "There are no such rows."
    return await table(
        _OUT if out else _ROWS, rows, key="number", nothing=nothing, limit=20,
        on_open=None if out else partial(show_row, view),
    )  # fmt: skip


def _row(row: Mapping[str, Any], place: int) -> dict[str, Any]:
    return {
        "number": place,
        "id": row["id"][:12],
        "label": "–" if row["label"] is None else row["label"],
        "input": short(row["input"] or "", _SHOWN),
        "answer": short(row["answer"] or "–", _SHOWN),
        "source": row["source"] or row["kind"],
    }


def _out_row(row: Mapping[str, Any], place: int) -> dict[str, Any]:
    return {
        "number": f"{place:,}",
        "place": row["place"] or "–",
        "reason": row["reason"],
        "row": short(row["row"], _SHOWN),
    }
