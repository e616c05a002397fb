"""What changed from one dataset version to another: rows, labels, lengths, findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from tutelage.data.diff import Changed, Placed, VersionDiff
from tutelage.web.parts.diff import word_diff
from tutelage.web.parts.layout import Action, card, empty, figure, heading, notice
from tutelage.web.parts.table import Column, Query, Row, Rows, plain_table, table
from tutelage.web.parts.text import text
from tutelage.web.parts.words import count, number, short
from tutelage.web.view import View
from tutelage.workflows.context import Context
from tutelage.workflows.data import browse, versions

_SHOWN = 240
_MOST_LABELS = 40
_PAGE = 15
_KEPT = 3  # comparisons
_kept: dict[tuple[str, str, str], VersionDiff] = {}


async def show_changes(view: View, before: str, after: str) -> None:
    """Draw the comparison."""
    found = await view.call(_found, view.context, before, after)
    old, new = str(found.before["hash"])[:12], str(found.after["hash"])[:12]
    heading(
        "What changed",
        Action("The other way round", f"/data/{new}/to/{old}", icon="swap_horiz"),
        Action(f"Version {new}", f"/data/{new}", icon="dataset"),
        note=f"From version {old} to version {new}",
    )
    if old == new:
        empty("This is the same version.")
        return
    with ui.row().classes("gap-8"):
        for name, many in found.counts().items():
            kind = "bad" if name == "moved" and many else "idle"
            figure(number(many), name, kind)  # type: ignore[arg-type]
    if found.moved:
        notice("Rows stand on another side than before: old scores can't be compared.", "bad")
    if found.empty:
        empty("Both versions hold the same rows on the same sides.")
    await _changed("Changed rows", found.changed)
    await _placed("Added rows", found.added)
    await _placed("Removed rows", found.removed)
    await _changed("Rows on another side", found.moved)
    _labels(found)
    _lengths(found)
    _findings(found)


def _found(ctx: Context, before: str, after: str) -> VersionDiff:
    """Return the comparison. The last few are kept: versions never change, but may be erased."""
    key = (str(ctx.workspace.root), before, after)
    there = browse.readable(ctx, before) and browse.readable(ctx, after)
    if not there:
        _kept.pop(key, None)
    found = _kept.get(key) or versions.diff(ctx, before, after)
    if there:
        _kept[key] = found
        while len(_kept) > _KEPT:
            _kept.pop(next(iter(_kept)), None)
    return found


async def _placed(title: str, rows: Sequence[Placed]) -> None:
    if not rows:
        return

    async def give(query: Query) -> Rows:
        part = rows[query.offset : query.offset + query.limit]
        return Rows([_cells(item, query.offset + n) for n, item in enumerate(part)], len(rows))

    with card(f"{title} ({len(rows):,})"):
        await table(
            (
                Column("id", "Row"),
                Column("side", "Side"),
                Column("label", "Label"),
                Column("input", "Input", wide=True),
                Column("answer", "Answer", wide=True),
                Column("why", "Why", wide=True),
            ),
            give,
            key="place",
            limit=_PAGE,
        )


def _cells(item: Placed, place: int) -> dict[str, Any]:
    return {
        "place": place,
        "id": item.row.id[:12],
        "side": item.side,
        "label": "–" if item.row.label is None else item.row.label,
        "input": short(item.row.input_text, _SHOWN),
        "answer": short(item.row.answer or "–", _SHOWN),
        "why": item.why or "–",
    }


async def _changed(title: str, rows: Sequence[Changed]) -> None:
    if not rows:
        return

    async def give(query: Query) -> Rows:
        part = rows[query.offset : query.offset + query.limit]
        found = [
            {"place": query.offset + n, "change": item, "why": item.after.why or "–",
             "side": _sides(item), "label": _label(item)}
            for n, item in enumerate(part)
        ]  # fmt: skip
        return Rows(found, len(rows))

    with card(f"{title} ({len(rows):,})"):
        await table(
            (
                Column("why", "How"),
                Column("side", "Side"),
                Column("label", "Label"),
                Column("input", "Input", show=lambda row: _diff(row, "input_text"), wide=True),
                Column("answer", "Answer", show=lambda row: _diff(row, "answer"), wide=True),
            ),
            give,
            key="place",
            limit=_PAGE,
        )


def _diff(row: Row, field: str) -> None:
    change: Changed = row["change"]
    word_diff(getattr(change.before.row, field) or "", getattr(change.after.row, field) or "")


def _sides(item: Changed) -> str:
    one, two = item.before.side, item.after.side
    return one if one == two else f"{one} → {two}"


def _label(item: Changed) -> str:
    one, two = item.before.row.label or "–", item.after.row.label or "–"
    return one if one == two else f"{one} → {two}"


def _labels(found: VersionDiff) -> None:
    rows = [
        (label, number(before), number(after), f"{after - before:+,}")
        for label, (before, after) in found.labels.items()
        if after != before
    ]
    if not rows:
        return
    with card("Labels whose number of rows changed"):
        columns = ("label", "before", "after", "change")
        plain_table(columns, rows[:_MOST_LABELS], name="Labels")
        if len(rows) > _MOST_LABELS:
            text("p", f"and {count(len(rows) - _MOST_LABELS, 'more label')}", "tt-muted")


def _lengths(found: VersionDiff) -> None:
    if not found.lengths:
        return
    rows = [
        (
            item.name,
            f"{number(item.median[0])} → {number(item.median[1])}",
            f"{number(item.high[0])} → {number(item.high[1])}",
            number(item.index),
            "drifted" if item.drifted else "as before",
        )
        for item in found.lengths
    ]
    with card("Lengths in characters"):
        head = ("of", "median", "90th percentile", "stability index", "verdict")
        plain_table(head, rows, name="Lengths")


def _findings(found: VersionDiff) -> None:
    if not found.findings:
        return
    rows = [
        (each["severity"], f"{each['what']} ({each['id']})", each["before"], each["after"])
        for each in found.findings
    ]
    with card("Findings that changed"):
        plain_table(("severity", "what", "before", "after"), rows, name="Findings that changed")
