"""Everything the project knows of one row: its versions, side, cluster, findings, decisions.

It only reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tutelage.core.errors import DataError
from tutelage.core.example import SPLITS, Example
from tutelage.data.version import DROPPED, FINDINGS, QUARANTINE, DatasetVersion
from tutelage.store.annotations import AnnotationRow, ItemRow
from tutelage.store.repairs import RepairRow
from tutelage.workflows.context import Context

_TWINS = 5  # other rows of the cluster that are shown
_LEAST = 4  # digits of an id that are enough to look for


@dataclass(frozen=True)
class _Place:
    """Where a version has a row: on a side, or among those left out, for a reason."""

    version: DatasetVersion
    row: Example | None
    side: str | None
    left_out: dict[str, Any] | None = None


def show(ctx: Context, example_id: str, versions: Sequence[DatasetVersion]) -> dict[str, Any]:
    """Return what is known of the row whose id begins with `example_id`, as plain JSON.

    `versions` are the newest first. Raises DataError if no version holds such a row, or the ids
    of several rows begin like that.
    """
    full, places = _find(example_id, versions)
    home = next((place for place in places if place.side), places[0])
    row = home.row
    ids = [full, *(row.origin.parents if row else ())]
    return {
        "id": full,
        "version": home.version.hash[:12],
        "side": home.side,
        "left_out": home.left_out,
        "input": row.input_text if row else None,
        "answer": row.answer if row else None,
        "label": row.label if row else None,
        "origin": row.origin.model_dump(mode="json") if row else None,
        "row": row.model_dump(mode="json", exclude_defaults=True) if row else None,
        "cluster": _cluster(full, home.version) if home.side else None,
        "findings": _findings(full, home.version),
        "repairs": _repairs(ctx, ids),
        "annotations": _annotations(ctx, ids),
        "versions": [
            {
                "hash": place.version.hash[:12],
                "created_at": place.version.manifest.get("created_at"),
                "side": place.side,
                "reason": (place.left_out or {}).get("reason"),
            }
            for place in places
        ],
    }


def _find(example_id: str, versions: Sequence[DatasetVersion]) -> tuple[str, list[_Place]]:
    """Return the full id and its place in every version that names it."""
    wanted = example_id.strip().lower()
    if len(wanted) < _LEAST:
        fix = f"Give at least {_LEAST} digits of the id"
        raise DataError(f"{example_id!r} is too short to name a row", fix=fix)
    found: dict[str, list[_Place]] = {}
    for version in versions:
        for full, place in _places(wanted, version).items():
            found.setdefault(full, []).append(place)
    if len(found) > 1:
        raise DataError(
            f"{len(found)} rows have ids that begin with {wanted!r}",
            fix=f"Give more digits, such as {sorted(found)[0]}",
        )
    if not found:
        raise DataError(
            f"no dataset version has a row {example_id!r}",
            fix="`tutelage data diff` and the report show ids of rows",
        )
    return next(iter(found.items()))


def _places(wanted: str, version: DatasetVersion) -> dict[str, _Place]:
    """Return where a version has rows whose ids begin with `wanted`; a side before a reason."""
    found: dict[str, _Place] = {}
    for name in (DROPPED, QUARANTINE):
        for entry in _entries(version.directory / name, wanted):
            full = str(entry.get("id") or "")
            if full.startswith(wanted):
                kept = entry.get("row")
                row = Example.model_validate(kept) if isinstance(kept, dict) else None
                why = {key: entry.get(key) for key in ("finding", "reason", "cause")}
                found[full] = _Place(version, row, None, why)
    for split in SPLITS:
        for entry in _entries(version.directory / f"{split}.jsonl", f'{{"id": "{wanted}'):
            full = str(entry["id"])
            if full.startswith(wanted):
                found[full] = _Place(version, Example.model_validate(entry), split)
    return found


def _entries(path: Path, fragment: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file that hold `fragment`."""
    if path.is_file():
        with path.open(encoding="utf-8", newline="\n") as stream:
            for line in stream:
                if fragment in line:
                    yield json.loads(line)


def _cluster(full: str, version: DatasetVersion) -> dict[str, Any]:
    """Return the cluster's name, how many rows it has, and the first others of them."""
    name = version.cluster_of(full)
    members = [key for key, cluster in version.clusters.items() if cluster == name]
    others = []
    for key in [key for key in members if key != full][:_TWINS]:
        place = _places(key, version).get(key)
        if place is not None and place.row is not None:
            text, label = place.row.input_text, place.row.label
            others.append({"id": key, "side": place.side, "label": label, "input": text})
    return {"name": name, "rows": max(1, len(members)), "others": others}


def _findings(full: str, version: DatasetVersion) -> list[dict[str, Any]]:
    entries = _entries(version.directory / FINDINGS, full)
    return [
        {"id": entry["finding"], "detail": entry["detail"]}
        for entry in entries
        if entry["id"] == full
    ]


def _repairs(ctx: Context, ids: Sequence[str]) -> list[dict[str, Any]]:
    with ctx.store.session() as session:
        rows = session.scalars(
            select(RepairRow).where(RepairRow.example_id.in_(ids)).order_by(RepairRow.number)
        )
        return [
            {
                "batch": row.batch,
                "action": row.action,
                "value": row.value,
                "reason": row.reason,
                "author": row.author,
                "at": row.at.isoformat(timespec="seconds"),
                "undone": row.undone_at is not None,
            }
            for row in rows
        ]


def _annotations(ctx: Context, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return what people answered when they were asked about the row, oldest first."""
    with ctx.store.session() as session:
        rows = session.scalars(
            select(AnnotationRow)
            .join(ItemRow, ItemRow.id == AnnotationRow.item)
            .where(ItemRow.example_id.in_(ids), AnnotationRow.undone_at.is_(None))
            .order_by(AnnotationRow.number)
        )
        return [
            {
                "annotator": row.annotator,
                "label": row.label,
                "answer": row.answer,
                "flags": list(row.flags),
                "comment": row.comment,
                "seconds": row.seconds,
                "at": row.at.isoformat(timespec="seconds"),
            }
            for row in rows
        ]
