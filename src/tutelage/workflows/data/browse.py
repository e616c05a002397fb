"""One dataset version to look through: its figures, what it led to, its rows a page at a time.

Rows are read from the version's files by place; none is loaded that is not shown. Nothing is
written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from tutelage.core.errors import DataError
from tutelage.core.example import SPLITS, Example
from tutelage.data.version import DROPPED, QUARANTINE, is_buried, read_manifest
from tutelage.store.artifacts import ArtifactRow, ParentRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.versions import versions

PARTS = (*SPLITS, "quarantine", "dropped")
_FILES = {"quarantine": QUARANTINE, "dropped": DROPPED}
_MOST = 500  # rows of a page


@dataclass(frozen=True)
class Lines:
    """Some lines of a file of JSON lines, read, and how many there are in all."""

    rows: list[dict[str, Any]]
    total: int


def overview(ctx: Context, name: str) -> dict[str, Any]:
    """Return a version's entry of `versions` with its manifest and `used_by`.

    `name` is its hash or the first digits of it. Raises DataError if there is no such version.
    """
    entry = _entry(ctx, name)
    folder = folder_of(ctx, entry["hash"])
    manifest = read_manifest(folder) if entry["on_disk"] else {}
    full = str(manifest.get("hash", ""))
    return {
        **entry,
        "manifest": manifest,
        "labels": _labels(ctx, full),
        "used_by": _used(ctx, full),
    }


def folder_of(ctx: Context, short: str) -> Path:
    """Return the folder of a version by the first 12 digits of its hash."""
    return ctx.workspace.artifact_dir("datasets", short)


def rows(
    ctx: Context, name: str, part: str, *, start: int = 0, count: int = 20, text: str = ""
) -> Lines:
    """Return rows of a version: `part` is a split, quarantine or dropped; `text` must be in them.

    Rows of a split have id, input, answer, label and source; the others reason, place and row.
    """
    if part not in PARTS:
        raise DataError(f"a version has no part {part!r}", fix=f"Take one of {', '.join(PARTS)}")
    entry = _entry(ctx, name)
    if not entry["on_disk"]:
        raise DataError(
            "the rows of this version are not on this disk", where=entry["hash"],
            fix="Look at another version",
        )  # fmt: skip
    path = folder_of(ctx, entry["hash"]) / _FILES.get(part, f"{part}.jsonl")
    found = read_lines(path, start=start, count=count, text=text)
    shape = _left_out if part in _FILES else _row
    return Lines([shape(each) for each in found.rows], found.total)


def read_lines(path: Path, *, start: int, count: int, text: str = "") -> Lines:
    """Return `count` lines of a file from `start` on, of those that hold `text` (any case)."""
    if not path.is_file():
        return Lines([], 0)
    stat = path.stat()
    places = _places(str(path), stat.st_size, stat.st_mtime_ns, text.strip().lower())
    wanted = places[max(0, start) : max(0, start) + min(count, _MOST)]
    found = []
    with path.open("rb") as stream:
        for place in wanted.tolist():
            stream.seek(place)
            found.append(json.loads(stream.readline()))
    return Lines(found, len(places))


@lru_cache(maxsize=64)
def _places(path: str, size: int, changed: int, text: str) -> NDArray[np.int64]:
    """Return where the lines begin that hold `text`, bytes from the file's start."""
    found, place = [], 0
    with Path(path).open("rb") as stream:
        for line in stream:
            if not text or text in _spoken(line):
                found.append(place)
            place += len(line)
    return np.array(found, dtype=np.int64)


def _spoken(line: bytes) -> str:
    """Return the line as people would search in it."""
    return line.decode("utf-8", "replace").replace('\\"', '"').lower()


def _entry(ctx: Context, name: str) -> Mapping[str, Any]:
    known = versions(ctx)
    found = [each for each in known if name and each["hash"].startswith(name[:12].lower())]
    if len(found) != 1:
        raise DataError(
            f"there is no dataset version {name[:40]!r}", fix="`tutelage data versions` lists them"
        )
    return found[0]


def _labels(ctx: Context, full: str) -> dict[str, int]:
    with ctx.store.session() as session:
        row = session.get(ArtifactRow, full)
        found: dict[str, int] = dict(row.meta.get("labels") or {}) if row else {}
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _used(ctx: Context, full: str) -> list[dict[str, Any]]:
    """Return what was made from a version, the newest first: kind, hash, created_at."""
    with ctx.store.session() as session:
        made = session.scalars(
            select(ArtifactRow)
            .join(ParentRow, ParentRow.child == ArtifactRow.hash)
            .where(ParentRow.parent == full)
            .order_by(ArtifactRow.created_at.desc())
        ).all()
        return [
            {"kind": row.kind, "hash": row.hash[:12], "created_at": row.created_at} for row in made
        ]


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    row = Example.model_validate({key: value for key, value in entry.items() if key != "id"})
    return {
        "id": entry["id"],
        "input": row.input_text,
        "answer": row.answer,
        "label": row.label,
        "source": row.origin.source,
        "kind": row.origin.kind,
    }


def _left_out(entry: dict[str, Any]) -> dict[str, Any]:
    held = entry.get("row")
    text = held if isinstance(held, str) else ""
    source = ""
    if isinstance(held, dict):
        example = Example.model_validate(held)
        text, source = (
            f"{example.input_text}\n{example.answer or ''}".strip(),
            example.origin.source,
        )
    place = f"{entry['file']}:{entry['line']}" if entry.get("line") else entry.get("file")
    return {
        "id": entry.get("id"),
        "finding": entry.get("finding"),
        "reason": entry.get("reason"),
        "place": place or source,
        "cause": entry.get("cause"),
        "row": text,
    }


def readable(ctx: Context, name: str) -> bool:
    """Return whether a version's rows are on this disk and not erased."""
    folder = folder_of(ctx, name[:12])
    return folder.is_dir() and not is_buried(folder)
