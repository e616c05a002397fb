"""Dataset versions without one user's rows: a new version takes the place of each that holds any.

The old one's files are deleted; its manifest stays with its hash, so that what was trained on it
can still be named. Pairs of preferences and rows of a training stage are versions too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from tutelage.core.artifact import MANIFEST, Artifact, describe
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.core.lines import lines_of
from tutelage.data import card
from tutelage.data.version import (
    DROPPED,
    ERASED,
    QUARANTINE,
    DatasetVersion,
    VersionDraft,
    bury_version,
    is_buried,
    load_version,
    read_manifest,
    write_version,
)
from tutelage.feedback.privacy.traces import Traces
from tutelage.store.artifacts import ArtifactRow, ParentRow, StageRow
from tutelage.store.releases import DeploymentRow, ReleaseRow
from tutelage.workflows.context import Context, find_artifact, register

FOLDERS = ("datasets", "stages", "preferences")
_MADE = ("kind", "hash", "rows_hash", "counts", "versions", "created_at", "files")


@dataclass(frozen=True)
class Held:
    """A version that holds rows of the user, by side."""

    folder: Path
    hash: str
    rows: dict[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.rows.values())


def versions_on_disk(ctx: Context) -> list[Path]:
    """Return the folders of all versions that have rows, oldest first."""
    found = [
        path.parent
        for kind in FOLDERS
        for path in (ctx.workspace.artifacts / kind).glob(f"*/{MANIFEST}")
        if not is_buried(path.parent)
    ]
    return sorted(found, key=lambda folder: str(read_manifest(folder).get("created_at", "")))


@dataclass(frozen=True)
class _Read:
    """A version as it was read: rows by side, and what it left out by file."""

    folder: Path
    hash: str
    rows: dict[SplitName, list[Example]]
    left_out: dict[str, list[Any]]


def find_held(ctx: Context, traces: Traces) -> list[Held]:
    """Return the versions that hold rows of the user; their ids and texts are added to `traces`.

    What is found in one version may be known by it in another, so they are looked through until
    nothing is new. Each is read once, and a row that several have is held once.
    """
    rows: dict[str, Example] = {}
    versions = [_read(folder, rows) for folder in versions_on_disk(ctx)]
    while True:
        _leave_common(rows.values(), traces)
        before = len(traces.examples), len(traces.texts)
        held = [one for version in versions if (one := _look(version, traces)) is not None]
        if (len(traces.examples), len(traces.texts)) == before:
            return held


def _read(folder: Path, known: dict[str, Example]) -> _Read:
    """Read a version; rows that are `known` are not held again."""
    version = load_version(folder)
    rows: dict[SplitName, list[Example]] = {
        split: [known.setdefault(row.model_dump_json(), row) for row in version.stream(split)]
        for split in SPLITS
    }
    left_out = {name: list(_lines(version, name)) for name in (QUARANTINE, DROPPED)}
    return _Read(folder, version.hash, rows, left_out)


def _leave_common(rows: Iterable[Example], traces: Traces) -> None:
    """Recognise nobody by texts that rows of others have, such as an answer that many get."""
    for row in rows:
        if not traces.is_theirs(row):
            traces.leave(turn.content for turn in row.messages)


def _look(version: _Read, traces: Traces) -> Held | None:
    found: Counter[str] = Counter()
    for split, rows in version.rows.items():
        for row in rows:
            if traces.is_theirs(row):
                found[split] += 1
                traces.examples.add(row.id)
                traces.add_texts(turn.content for turn in row.messages if turn.role != "system")
                traces.inputs.add(row.input_text)
    for name, lines in version.left_out.items():
        count = sum(map(traces.holds, lines))
        found.update({name.removesuffix(".jsonl"): count} if count else {})
    return Held(version.folder, version.hash, dict(found)) if found else None


def replace_version(ctx: Context, held: Held, traces: Traces) -> str:
    """Write the version without the user's rows, then bury the old one; return the new hash."""
    old = load_version(held.folder)
    left: dict[SplitName, list[Example]] = {
        split: [row for row in old.stream(split) if not traces.is_theirs(row)] for split in SPLITS
    }
    ids = {row.id for rows in left.values() for row in rows}
    meta = {name: value for name, value in old.manifest.items() if name not in _MADE}
    if isinstance(meta.get("privacy"), dict):
        meta["privacy"] = {**meta["privacy"], "examples": []}
    meta = {**traces.prune(meta), "parents": [old.hash], "without": held.total}
    draft = VersionDraft(
        left,
        {name: cluster for name, cluster in old.clusters.items() if name in ids},
        _lines_left(old, DROPPED, traces),
        _lines_left(old, QUARANTINE, traces),
        meta,
    )
    new = write_version(held.folder.parent, draft, lambda manifest: _reports(manifest, draft))
    _register(ctx, old.hash, new, left)
    bury_version(held.folder, new.hash, held.total)
    return new.hash


def _lines_left(version: DatasetVersion, name: str, traces: Traces) -> list[dict[str, Any]]:
    return [row for row in _lines(version, name) if not traces.holds(row)]


def _lines(version: DatasetVersion, name: str) -> Iterator[Any]:
    path = version.directory / name
    return map(json.loads, lines_of(path.read_text("utf-8")) if path.is_file() else ())


def _reports(manifest: dict[str, Any], draft: VersionDraft) -> Mapping[str, str]:
    if "leak" not in manifest:  # a stage's or preferences': they have no page
        return {}
    shown = {**manifest, "left_out": [*draft.quarantine, *draft.dropped]}
    page = card.html_report(shown, draft.splits, draft.clusters)
    return {"report.html": page, "report.txt": card.text_report(manifest)}


def _register(
    ctx: Context, old: str, new: DatasetVersion, left: Mapping[SplitName, list[Example]]
) -> None:
    """Keep the new version as an artifact, and as the newest one where the old one was that."""
    before = find_artifact(ctx.store, old)
    if before is None:
        return
    labels = Counter(row.label for rows in left.values() for row in rows if row.label is not None)
    path = ctx.workspace.relative(new.directory)
    meta = {**before.meta, "counts": new.manifest["counts"]}
    if "labels" in meta:
        meta["labels"] = dict(labels)
    if "report" in meta:
        meta["report"] = f"{path}/report.html"
    register(ctx.store, describe(before.kind, new.hash, path, parents=[old], meta=meta))
    with ctx.store.begin() as session:
        current = update(StageRow).where(StageRow.output == old)
        session.execute(current.values(output=new.hash))


def trained_on(ctx: Context, held: list[Held]) -> list[dict[str, Any]]:
    """Return what was made of the user's rows, with the releases that carry it.

    Each has kind, hash, dataset, rows (by side), releases; `serves` names deployments. What was
    trained on a version that lost other rows since knows the rows of the one after it as well.
    """
    found = []
    before = _replaced(ctx)
    for one in held:
        if not one.rows.get("train") and not one.rows.get("validation"):
            continue
        versions = [one.hash]
        for digest in versions:
            versions += before.get(digest, ())
        for artifact in _descendants(ctx, versions):
            releases = _releases(ctx, artifact.hash)
            found.append(
                {
                    "kind": artifact.kind,
                    "hash": artifact.short,
                    "dataset": one.hash[:12],
                    "rows": one.rows,
                    "releases": [name for name, _ in releases],
                    "serves": sorted({where for _, places in releases for where in places}),
                }
            )
    return found


def _replaced(ctx: Context) -> dict[str, list[str]]:
    """Return the hashes of the versions that were erased, by that of the one after them."""
    found: dict[str, list[str]] = {}
    for kind in FOLDERS:
        for path in (ctx.workspace.artifacts / kind).glob(f"*/{MANIFEST}"):
            manifest = read_manifest(path.parent)
            if stone := manifest.get(ERASED):
                found.setdefault(str(stone["replaced_by"]), []).append(str(manifest["hash"]))
    return found


def _descendants(ctx: Context, digests: list[str]) -> list[Artifact]:
    """Return the models that were made from versions, through whatever lies between."""
    seen, ask, models = set(digests), digests, []
    while ask:
        with ctx.store.session() as session:
            query = select(ParentRow.child, ArtifactRow.kind).join(
                ArtifactRow, ArtifactRow.hash == ParentRow.child
            )
            rows = session.execute(query.where(ParentRow.parent.in_(ask))).tuples().all()
        ask = []
        for child, kind in rows:
            if child in seen or kind in ("dataset", "evaluation", "release"):
                continue
            seen.add(child)
            ask.append(child)
            artifact = find_artifact(ctx.store, child)
            if artifact is not None and kind in ("adapter", "model", "hosted"):
                models.append(artifact)
    return models


def _releases(ctx: Context, digest: str) -> list[tuple[str, list[str]]]:
    with ctx.store.session() as session:
        rows = session.scalars(select(ReleaseRow))
        named = {row.id: row.name for row in rows if digest in json.dumps(row.manifest)}
        stable = session.execute(
            select(DeploymentRow.stable, DeploymentRow.name).where(DeploymentRow.stable.in_(named))
        )
        places: dict[str, list[str]] = {}
        for release, where in stable:
            places.setdefault(release, []).append(where)
    return [(name, places.get(release, [])) for release, name in named.items()]
