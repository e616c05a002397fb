"""Who is evaluated and who stands beside: an adapter, a release, a folder, the stable release.

A name is turned into weights, a base model and a prompt. Nothing is loaded here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import select

from tutelage.core.artifact import Artifact, content_hash, hash_files
from tutelage.core.errors import DataError, ModelError, did_you_mean
from tutelage.evaluation.candidates import BASE, CONSTRAINED, FEW_SHOT, STABLE, TFIDF, TUNED
from tutelage.inference.models import ModelSource, locate_model
from tutelage.inference.tuned import read_tuned, tuned_files
from tutelage.release import bundle
from tutelage.store.artifacts import ArtifactRow
from tutelage.store.releases import DeploymentRow, ReleaseRow
from tutelage.workflows.context import Context, find_artifact
from tutelage.workflows.evaluation import evaluate_hosted

KINDS = ("adapter", "imported", evaluate_hosted.KIND)
_OWN = frozenset({BASE, FEW_SHOT, TUNED, STABLE, TFIDF})
_HEX = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class Entrant:
    """One who answers. `source` is None for a model at a service; without `folder` it is a base.

    `key` is the same for the same weights with the same prompt.
    """

    name: str  # what it is called among the candidates
    title: str
    source: ModelSource | None
    prompt: str
    folder: Path | None = None
    hash: str = BASE  # of the adapter, the release or the folder's files
    parents: tuple[str, ...] = ()
    hosted: Artifact | None = None

    @property
    def key(self) -> str:
        """The hash of all that the answers depend on besides the rows."""
        model = self.source.digest if self.source else self.hash
        weights = self.parents[-1] if self.parents else self.hash
        return content_hash([model, weights if self.folder else None, self.prompt.strip()])


def base_entrant(ctx: Context, source: ModelSource | None) -> Entrant:
    """Return the bare base model with the project's prompt."""
    return Entrant(BASE, "base model", source, ctx.config.prompt)


def of_artifact(ctx: Context, adapter: Artifact, source: ModelSource | None) -> Entrant:
    """Return an adapter that was trained here, or a model at a service."""
    hosted = adapter if adapter.kind == evaluate_hosted.KIND else None
    return Entrant(
        adapter.short, "tuned model", None if hosted else source, ctx.config.prompt,
        ctx.path_of(adapter), adapter.hash, (adapter.hash,), hosted,
    )  # fmt: skip


def of_release(ctx: Context, row: ReleaseRow) -> Entrant:
    """Return a release with its own base model and prompt, its files checked by hash.

    Raises ModelError if they are not what was released.
    """
    manifest = bundle.manifest_of(row)
    bundle.verify_release(ctx.workspace, row)
    source = locate_model(manifest.base.spec, ctx.workspace.root)
    if source.digest != manifest.base.digest:
        raise ModelError(
            f"the base model of {row.name} is not the one it was released with",
            where=str(source.path),
            fix="Restore those weights, or leave the release out",
        )
    adapter = (manifest.adapter.hash,) if manifest.adapter else ()
    return Entrant(
        row.name, f"release {row.name}", source, manifest.prompt,
        bundle.adapter_path(ctx.workspace, row), row.id, (row.id, *adapter),
    )  # fmt: skip


def of_folder(ctx: Context, folder: Path, source: ModelSource | None) -> Entrant:
    """Return an adapter or a whole model that lies in a folder, tuned here or elsewhere.

    Raises ModelError if a part is missing.
    """
    read_tuned(folder)
    digest = hash_files(folder, tuned_files(folder))
    name = folder.resolve().name
    return Entrant(name, f"folder {name}", source, ctx.config.prompt, folder, digest)


def stable_release(ctx: Context) -> ReleaseRow | None:
    """Return the release that answers the project's clients, or None."""
    with ctx.store.session() as session:
        row = session.get(DeploymentRow, ctx.config.name)
        return session.get(ReleaseRow, row.stable) if row else None


def resolve(ctx: Context, spec: str, source: ModelSource | None) -> Entrant:
    """Return who `spec` names: base, stable, a release, an adapter's id, or a folder.

    Raises DataError, with what there is, if nobody is called so.
    """
    if spec == BASE:
        return base_entrant(ctx, source)
    if spec == STABLE:
        row = stable_release(ctx)
        if row is None:
            raise DataError("there is no stable release yet", fix="Release and serve one first")
        return of_release(ctx, row)
    with ctx.store.session() as session:
        named = session.scalars(select(ReleaseRow).where(ReleaseRow.name == spec)).first()
    if named is not None:
        return of_release(ctx, named)
    artifact = named_artifact(ctx, spec)
    if artifact is not None:
        return of_artifact(ctx, artifact, source)
    for folder in (Path(spec).expanduser(), ctx.workspace.root / spec):
        if folder.is_dir():
            return of_folder(ctx, folder, source)
    if _HEX.fullmatch(spec):
        with ctx.store.session() as session:
            query = select(ReleaseRow).where(ReleaseRow.id.startswith(spec)).limit(2)
            rows = list(session.scalars(query))
        if len(rows) == 1:
            return of_release(ctx, rows[0])
    raise _unknown(ctx, spec)


def named_artifact(ctx: Context, prefix: str) -> Artifact | None:
    """Return what was tuned and whose id starts so (4 digits or more), or None.

    Raises DataError if several do.
    """
    if not _HEX.fullmatch(prefix):
        return None
    with ctx.store.session() as session:
        query = select(ArtifactRow.hash).where(
            ArtifactRow.hash.startswith(prefix), ArtifactRow.kind.in_(KINDS)
        )
        found = list(session.scalars(query.limit(2)))
    if len(found) > 1:
        raise DataError(f"{prefix!r} fits several adapters", fix="Type more digits")
    return find_artifact(ctx.store, found[0]) if found else None


def _unknown(ctx: Context, spec: str) -> DataError:
    with ctx.store.session() as session:
        releases = list(session.scalars(select(ReleaseRow.name).order_by(ReleaseRow.created_at)))
        adapters = session.scalars(
            select(ArtifactRow.hash)
            .where(ArtifactRow.kind.in_(KINDS))
            .order_by(ArtifactRow.created_at)
        )
        known = [BASE, *releases[-6:], *(digest[:12] for digest in list(adapters)[-6:])]
    hint = did_you_mean(spec, known)
    return DataError(
        f"there is no candidate {spec!r}",
        fix=f"{hint}Name a folder or one of these: {', '.join(known)}",
    )


def stands_for_stable(ctx: Context, key: str | None, source: ModelSource | None) -> str:
    """Return who answers as the stable release does: base (or none is there), tuned, stable."""
    return _stands(ctx, _stable(ctx), key, source)


def _stable(ctx: Context) -> Entrant | None:
    row = stable_release(ctx)
    return of_release(ctx, row) if row else None


def _stands(
    ctx: Context, stable: Entrant | None, key: str | None, source: ModelSource | None
) -> str:
    if stable is None or stable.key == base_entrant(ctx, source).key:
        return BASE
    return TUNED if stable.key == key else STABLE


def rivals(
    ctx: Context, entrant: Entrant | None, against: Sequence[str], source: ModelSource | None
) -> tuple[Entrant, ...]:
    """Return who stands beside base and few-shot: the stable release, and those in `against`.

    The stable release is left out where it is the candidate itself, or answers as the base does.
    """
    if entrant is None or entrant.hosted is not None:
        return ()
    found: dict[str, Entrant] = {}
    stable = _stable(ctx)
    if stable is not None and _stands(ctx, stable, entrant.key, source) == STABLE:
        found[STABLE] = replace(stable, name=STABLE, title=f"stable release {stable.name}")
    for spec in against:
        if spec in _OWN:
            continue
        named = resolve(ctx, spec, source)
        if named.key == entrant.key:
            raise DataError(f"{spec!r} is the candidate itself", fix="Name another one to beat")
        found[spec] = replace(named, name=rival_name(spec))
    return tuple(found.values())


def rival_name(spec: str) -> str:
    """Return the name of a rival: what was typed, unless a candidate of ours is called so."""
    if spec in _OWN:
        return spec
    name = Path(spec).name if "/" in spec else spec
    clash = name.removesuffix(CONSTRAINED) in _OWN
    return f"{name}_rival" if clash else name[:60]
