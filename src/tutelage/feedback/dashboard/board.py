"""The dashboard as plain data: what `--json`, Python and HTTP give and what the page draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select

from tutelage.core.config import Project
from tutelage.feedback.dashboard.cells import LEAST, Cell
from tutelage.feedback.dashboard.changes import changes
from tutelage.feedback.dashboard.reading import Asked, Found, read
from tutelage.feedback.dashboard.stretches import stretches
from tutelage.release.routes import require_deployment
from tutelage.serving.access.pricing import Pricing
from tutelage.store.base import Store
from tutelage.store.releases import ReleaseRow

_SHOWN = 6  # releases with a line of their own
Ends = tuple[datetime, datetime]


def board(
    store: Store, project: Project, deployment: str, ends: Ends, every: str | None = None
) -> dict[str, Any]:
    """Return what a deployment's releases did between `ends`, by `every` hour, day or week.

    Raises DataError for a deployment there is not, or time that can't be cut so.
    """
    with store.session() as session:
        serving = require_deployment(session, deployment).stable
        rows = session.execute(select(ReleaseRow.id, ReleaseRow.name)).all()
    names = {row.id: row.name for row in rows}
    since, until = ends
    asked = Asked(deployment, since, until, stretches(since, until, every))
    found = read(store, project, asked)
    releases = _releases(found, names, serving)
    document = {
        "deployment": deployment,
        "since": since.isoformat(timespec="seconds"),
        "until": until.isoformat(timespec="seconds"),
        "every": asked.cut.every,
        "currency": Pricing(project).currency,
        "least": LEAST,
        "releases": releases,
        "points": _points(found, asked, [one["id"] for one in releases]),
        "changes": changes(store, deployment, since, until),
        "signals": [
            {"name": name, "says": rule.meaning, "better": rule.direction, "kind": rule.kind}
            for name, rule in sorted(found.signals.items())
        ],
    }
    return {**document, "sentence": _sentence(releases), "notes": _notes(found, asked, releases)}


def _shares(found: Found) -> dict[str, bool]:
    """Return the signals there are: whether each is a share of the answers, or a mean."""
    return {name: rule.kind in ("flag", "text") for name, rule in sorted(found.signals.items())}


def _releases(found: Found, names: Mapping[str, str], serving: str) -> list[dict[str, Any]]:
    """Return every release with its figures of the whole span: who serves first, then by use."""
    sums: dict[str, Cell] = {}
    last: dict[str, int] = {}
    for (release, place), cell in found.cells.items():
        sums.setdefault(release, Cell()).join(cell)
        last[release] = max(place, last.get(release, place))
    order = sorted(sums, key=lambda r: (r != serving, -sums[r].requests))
    shares = _shares(found)
    return [
        {
            "id": release,
            "name": names.get(release, release[:12]),
            "serves": release == serving,
            "drawn": place < _SHOWN,
            **sums[release].point(shares),
        }
        for place, release in enumerate(order)
    ]


def _points(found: Found, asked: Asked, releases: Sequence[str]) -> list[dict[str, Any]]:
    shares = _shares(found)
    return [
        {
            "release": release,
            "at": asked.cut.begin(place).isoformat(timespec="seconds"),
            **found.cells[release, place].point(shares),
        }
        for release in releases
        for place in range(asked.cut.count)
        if (release, place) in found.cells
    ]


def _sentence(releases: Sequence[Mapping[str, Any]]) -> str:
    total = sum(one["requests"] for one in releases)
    if not total:
        return "No request came in this time"
    one = releases[0]
    parts = [f"{one['name']} answered {one['requests']:,} of {total:,} requests"]
    failed, liked, slow = one["failed"], one["feedback"], one["latency_p95_ms"]
    if failed["n"]:
        parts.append(f"{failed['value']:.1%} failed")
    if slow["value"] is not None:
        parts.append(f"19 of 20 took under {slow['value']:,.0f} ms")
    if liked["n"]:
        parts.append(f"users' verdict {liked['value']:.2f} of 1 on {liked['n']:,} answers")
    else:
        parts.append("no user said anything of its answers")
    return ", ".join(parts)


def _notes(found: Found, asked: Asked, releases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the figures leave out or rest on too little."""
    notes, cut = [], asked.cut
    busy = {place for (_, place), cell in found.cells.items() if cell.requests}
    quiet = [place for place in range(min(busy, default=0), max(busy, default=0))
             if place not in busy]  # fmt: skip
    if quiet:
        days = ", ".join(f"{cut.begin(place):%Y-%m-%d %H:%M}" for place in quiet[:3])
        more = f" and {len(quiet) - 3:,} more" if len(quiet) > 3 else ""
        notes.append(f"No request came in {_count(len(quiet), cut.every)}: {days}{more}.")
    if asked.until.timestamp() < cut.start + cut.count * cut.length:
        notes.append(f"The last {cut.every} is not over: its counts are of a part of it.")
    few = sum(0 < cell.requests < LEAST for cell in found.cells.values())
    if few:
        longer = {"hour": "day", "day": "week"}.get(cut.every)
        hint = f"; `--every {longer}` is steadier" if longer and 2 * few > len(found.cells) else ""
        notes.append(
            f"{_count(few, 'point')} of {len(found.cells):,} rest on fewer than {LEAST} requests "
            f"and are drawn faint{hint}."
        )
    if found.forgotten:
        notes.append(
            f"Records of {_count(len(found.forgotten), 'day')} are deleted: their requests, tokens "
            "and cost are counted, the rest is gone."
        )
    if found.turned_away:
        notes.append(
            f"{_count(found.turned_away, 'request')} turned away by the gateway (keys, limits, "
            "what can't be read) are in no figure."
        )
    if found.copies:
        notes.append(f"{_count(found.copies, 'copy')} of requests, seen by nobody, are left out.")
    hidden = sum(not one["drawn"] for one in releases)
    if hidden:
        notes.append(f"{_count(hidden, 'release')} with less use have no line, only a row.")
    return notes


def _count(number: int, noun: str) -> str:
    many = f"{noun[:-1]}ies" if noun.endswith("y") and noun != "day" else f"{noun}s"
    return f"{number:,} {noun if number == 1 else many}"
