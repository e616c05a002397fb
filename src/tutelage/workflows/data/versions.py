"""List the project's dataset versions, compare two of them, follow one row, and say what made one.

A version is named by the first digits of its hash. Its parent is the version before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import Artifact
from tutelage.core.errors import DataError, nearest
from tutelage.core.events import Event
from tutelage.core.workspace import atomic_write
from tutelage.data import diff_page
from tutelage.data.diff import VersionDiff, compare
from tutelage.data.version import DatasetVersion, is_buried, load_version, read_manifest
from tutelage.store.artifacts import ArtifactRow
from tutelage.store.repairs import RepairRow
from tutelage.workflows.context import Context, find_artifact, last_output, made_from
from tutelage.workflows.data import row_history
from tutelage.workflows.outputs import require_output

_STAGE = "curate"
_KIND = "dataset"


def lineage(ctx: Context, sources: Mapping[str, str]) -> dict[str, Any]:
    """Return what the next version is made from, for its manifest.

    `parents` holds the hash of the version before it, `sources` the hash of each file by name,
    `repairs` the batches of repairs in force.
    """
    previous = last_output(ctx, _STAGE)
    with ctx.store.session() as session:
        batches = session.scalars(
            select(RepairRow.batch).where(RepairRow.undone_at.is_(None)).distinct()
        )
        found = sorted(batches)
    return {
        "parents": [previous.hash] if previous else [],
        "sources": dict(sources),
        "repairs": found,
    }


def versions(ctx: Context) -> list[dict[str, Any]]:
    """Return every version, newest first.

    Each has hash, created_at, counts, parents (short hashes), current, on_disk, erased, sources and
    repairs.
    """
    newest = last_output(ctx, _STAGE)
    found = []
    for artifact in _artifacts(ctx):
        folder = ctx.path_of(artifact)
        manifest = read_manifest(folder) if folder.is_dir() else {}
        found.append(
            {
                "hash": artifact.short,
                "created_at": artifact.created_at.isoformat(timespec="seconds"),
                "counts": dict(artifact.meta.get("counts", {})),
                "parents": [parent[:12] for parent in artifact.parents],
                "current": newest is not None and artifact.hash == newest.hash,
                "on_disk": folder.is_dir() and "erased" not in manifest,
                "erased": manifest.get("erased"),
                "sources": dict(manifest.get("sources", {})),
                "repairs": list(manifest.get("repairs", [])),
            }
        )
    return found


def diff(ctx: Context, before: str | None = None, after: str | None = None) -> VersionDiff:
    """Return what changed between two versions, named by the first digits of their hashes.

    Unset, `after` is the newest version and `before` the one it was made from. Raises DataError
    for an unknown or ambiguous name, or if there is nothing to compare with.
    """
    new = _named(ctx, after) if after else require_output(ctx, _STAGE)
    old = _named(ctx, before) if before else _before(ctx, new)
    ctx.emit(Event("diff", "note", f"{old.short} to {new.short}"))
    return compare(_load(ctx, old), _load(ctx, new))


def named(ctx: Context, name: str | None = None) -> Artifact:
    """Return the version whose hash begins with `name`, the newest unless named."""
    return _named(ctx, name) if name else require_output(ctx, _STAGE)


def write_diff(ctx: Context, found: VersionDiff) -> Path:
    """Write the comparison as a page under the artifacts; return its path."""
    before, after = (str(part["hash"])[:12] for part in (found.before, found.after))
    path = ctx.workspace.artifacts / "reports" / f"diff-{before}-{after}.html"
    atomic_write(path, diff_page.page(found, project=ctx.config.name).encode())
    return path


def show(ctx: Context, example_id: str) -> dict[str, Any]:
    """Return all that is known of one row, named by the first digits of its id, as plain JSON.

    Its origin, side, cluster, findings, repairs, annotations, and its place in every version.
    Raises DataError if there is no such row, or several.
    """
    require_output(ctx, _STAGE)
    folders = [ctx.path_of(artifact) for artifact in _artifacts(ctx)]
    return row_history.show(ctx, example_id, _shown(folders))


def _shown(folders: Sequence[Path]) -> list[DatasetVersion]:
    return [load_version(one) for one in folders if one.is_dir() and not is_buried(one)]


def _artifacts(ctx: Context) -> list[Artifact]:
    """Return every dataset version, the newest first; the current one leads."""
    newest = last_output(ctx, _STAGE)
    with ctx.store.session() as session:
        hashes = session.scalars(
            select(ArtifactRow.hash)
            .where(ArtifactRow.kind == _KIND)
            .order_by(ArtifactRow.created_at.desc(), ArtifactRow.hash)
        ).all()
    if newest is not None:
        hashes = [newest.hash, *(digest for digest in hashes if digest != newest.hash)]
    found = (find_artifact(ctx.store, digest) for digest in hashes)
    return [artifact for artifact in found if artifact is not None]


def _named(ctx: Context, name: str) -> Artifact:
    """Return the version whose hash begins with `name`."""
    wanted = name.strip().lower()
    known = _artifacts(ctx)
    found = [artifact for artifact in known if wanted and artifact.hash.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{len(found)} versions begin with {name!r}",
            fix=f"Give more digits, such as {found[0].short}",
        )
    close = nearest(wanted, [artifact.short for artifact in known])
    hint = f"Did you mean {close}? " if close else ""
    raise DataError(
        f"there is no dataset version {name!r}", fix=f"{hint}`tutelage data versions` lists them"
    )


def _before(ctx: Context, artifact: Artifact) -> Artifact:
    """Return the version that `artifact` was made from, or else the next newest one."""
    found = made_from(ctx.store, artifact, _KIND)
    if found is not None:
        return found
    others = [other for other in _artifacts(ctx) if other.hash != artifact.hash]
    if not others:
        raise DataError(
            "there is only one dataset version, so nothing to compare it with",
            fix="Change the rows and run `tutelage data split` for the next one",
        )
    return others[0]


def _load(ctx: Context, artifact: Artifact) -> DatasetVersion:
    return load_version(ctx.path_of(artifact))
