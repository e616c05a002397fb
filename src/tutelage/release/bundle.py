"""A release: base model + adapter + prompt + decoding, immutable, named by the hash of all that.

The adapter stays in its own artifact folder and is verified by hash when it is loaded. The store
keeps the name (icd-coder-v2), which is no part of the content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core.artifact import (
    MANIFEST,
    Artifact,
    canonical,
    content_hash,
    describe,
    hash_file,
)
from tutelage.core.errors import DataError, ModelError, NotFound, did_you_mean
from tutelage.core.workspace import Workspace, atomic_dir
from tutelage.inference.base import Decoding
from tutelage.inference.tuned import read_tuned, tuned_files
from tutelage.release.card import CARD
from tutelage.store.base import Store
from tutelage.store.releases import ReleaseRow

Kind = Literal["base", "tuned", "imported"]
BODY, GOLDEN = "release.json", "golden.jsonl"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class BaseRef(_Frozen):
    """The base model: `spec` finds it (tutelage.yaml's `model`), `digest` proves it."""

    spec: str
    name: str
    digest: str  # SHA-256 of the weights


class AdapterRef(_Frozen):
    """The adapter's artifact: its folder relative to .tutelage, and the SHA-256 of its files."""

    hash: str
    path: str
    files: dict[str, str] = {}


class OutputRef(_Frozen):
    """The shape of an answer (core.output.OutputFormat)."""

    field: str | None = None
    labels: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None


class Golden(_Frozen):
    """One prompt with the text this release wrote for it when it was evaluated."""

    id: str
    messages: tuple[dict[str, Any], ...]  # the user's turns; the release's prompt goes in front
    expected: str
    reference: str | None = None


class ReleaseManifest(_Frozen):
    """All that a release is. `name` is given by the store when empty, and is not hashed."""

    name: str = ""
    kind: Kind
    base: BaseRef
    adapter: AdapterRef | None = None
    prompt: str = ""
    prompt_hash: str = ""
    decoding: Decoding = Decoding()
    output: OutputRef = OutputRef()
    specials: tuple[str, ...] = ()  # the tokenizer's control tokens, neutralised in user text
    golden: tuple[Golden, ...] = ()
    dataset: str | None = None
    evaluation: str | None = None

    @property
    def id(self) -> str:
        """The content hash, 64 hex digits: everything but the name and where the adapter lies."""
        return content_hash(self.body())

    def body(self) -> dict[str, Any]:
        """Return what is hashed, as plain data."""
        values = self.model_dump(mode="json", exclude={"name"})
        if values["adapter"] is not None:
            del values["adapter"]["path"]
        return values


def create_release(
    store: Store,
    workspace: Workspace,
    manifest: ReleaseManifest,
    *,
    project: str | None = None,
    readme: Callable[[str], str] | None = None,
) -> ReleaseRow:
    """Write the release's folder and row; the same content twice is the same release.

    An empty `manifest.name` becomes <project>-base, or <project>-v1, v2 … `readme(name)` is the
    model card's text; it lies in the folder and is no part of the hash.
    Raises DataError if a given name is taken by other content.
    """
    digest = manifest.id
    with store.begin() as session:
        row = session.get(ReleaseRow, digest)
        if row is not None:
            parts = _Parts(manifest, row.path, row.name, readme)
            atomic_dir(workspace.home / row.path, parts.fill)
            return row
        name = manifest.name or _free_name(session, project or workspace.root.name, manifest.kind)
        _refuse_taken(session, name)
        manifest = manifest.model_copy(update={"name": name})
        target = workspace.artifact_dir("releases", digest)
        path = workspace.relative(target)
        atomic_dir(target, _Parts(manifest, path, name, readme).fill)
        row = ReleaseRow(
            id=digest,
            name=name,
            kind=manifest.kind,
            manifest=manifest.model_dump(mode="json"),
            path=path,
        )
        session.add(row)
        return row


def release_artifact(row: ReleaseRow, meta: dict[str, Any] | None = None) -> Artifact:
    """Return the release as an artifact, its parents being adapter, dataset and evaluation."""
    manifest = manifest_of(row)
    parents = [p for p in (manifest.dataset, manifest.evaluation) if p]
    if manifest.adapter:
        parents.append(manifest.adapter.hash)
    facts = {"name": row.name, "kind": row.kind, "prompt": manifest.prompt_hash, **(meta or {})}
    return describe("release", row.id, row.path, parents=parents, meta=facts)


def manifest_of(row: ReleaseRow) -> ReleaseManifest:
    """Return the manifest that a row keeps."""
    return ReleaseManifest.model_validate(row.manifest)


def get_release(store: Store, name_or_prefix: str) -> ReleaseRow:
    """Return the release with this name, or whose id starts with this (4 digits or more).

    Raises DataError if there is none, or several.
    """
    with store.session() as session:
        named = session.scalars(select(ReleaseRow).where(ReleaseRow.name == name_or_prefix)).first()
        if named is not None:
            return named
        found: list[ReleaseRow] = []
        if re.fullmatch(r"[0-9a-f]{4,64}", name_or_prefix):
            query = select(ReleaseRow).where(ReleaseRow.id.startswith(name_or_prefix))
            found = list(session.scalars(query.limit(3)))
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(
                f"{name_or_prefix!r} fits several releases",
                fix=f"Type more digits, or a name such as {found[0].name}",
            )
        names = list(session.scalars(select(ReleaseRow.name).order_by(ReleaseRow.created_at)))
    hint = did_you_mean(name_or_prefix, names)
    raise NotFound(
        f"there is no release {name_or_prefix!r}",
        fix=f"{hint}Known: {', '.join(names[-8:]) or 'none yet, run `tutelage run`'}",
    )


def list_releases(store: Store) -> list[ReleaseRow]:
    """Return every release, oldest first."""
    with store.session() as session:
        return list(session.scalars(select(ReleaseRow).order_by(ReleaseRow.created_at)))


def adapter_path(workspace: Workspace, release: ReleaseRow) -> Path | None:
    """Return the folder of the release's adapter, or None for a base release."""
    adapter = manifest_of(release).adapter
    return workspace.home / adapter.path if adapter else None


def adapter_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files that an adapter, or a tuned model, is made of, by name."""
    read_tuned(folder)
    return {name: hash_file(folder / name) for name in tuned_files(folder)}


def verify_release(workspace: Workspace, release: ReleaseRow) -> None:
    """Check a release before it is loaded: its manifest and every adapter file by hash.

    Raises ModelError naming the first thing that is not what was released.
    """
    manifest = manifest_of(release)
    if manifest.id != release.id:
        raise ModelError(
            "the release's manifest is not what its id says",
            where=release.name,
            fix="Restore the store from a backup, or release again with `tutelage release create`",
        )
    if manifest.adapter is None:
        return
    folder = workspace.home / manifest.adapter.path
    for name, digest in manifest.adapter.files.items():
        file = folder / name
        problem = "is missing" if not file.is_file() else None
        if problem is None and hash_file(file) != digest:
            problem = "was changed since it was released"
        if problem:
            raise ModelError(
                f"the adapter of {release.name} {problem}",
                where=str(file),
                fix="Restore the file, or train and release again with `tutelage run`",
            )


def _free_name(session: Session, project: str, kind: Kind) -> str:
    taken = set(session.scalars(select(ReleaseRow.name)))
    if kind == "base" and f"{project}-base" not in taken:
        return f"{project}-base"
    stem = f"{project}-base" if kind == "base" else project
    number = 2 if kind == "base" else 1
    while f"{stem}-v{number}" in taken:
        number += 1
    return f"{stem}-v{number}"


def _refuse_taken(session: Session, name: str) -> None:
    if session.scalars(select(ReleaseRow).where(ReleaseRow.name == name)).first():
        raise DataError(
            f"a release named {name!r} exists and is not the same",
            fix="Choose another name with --name",
        )


@dataclass(frozen=True)
class _Parts:
    """What a release's folder holds."""

    manifest: ReleaseManifest
    path: str
    name: str
    readme: Callable[[str], str] | None

    def fill(self, folder: Path) -> None:
        manifest = self.manifest
        text = json.dumps(
            {"id": manifest.id, **manifest.body()}, indent=2, ensure_ascii=False, sort_keys=True
        )
        (folder / BODY).write_text(text + "\n", encoding="utf-8")
        (folder / GOLDEN).write_bytes(_golden_lines(manifest))
        parents = [p for p in (manifest.dataset, manifest.evaluation) if p]
        if manifest.adapter:
            parents.append(manifest.adapter.hash)
        artifact = describe("release", manifest.id, self.path, parents=parents)
        (folder / MANIFEST).write_text(artifact.model_dump_json(indent=2) + "\n", "utf-8")
        if self.readme is not None:
            (folder / CARD).write_text(self.readme(self.name), encoding="utf-8")


def _golden_lines(manifest: ReleaseManifest) -> bytes:
    return b"".join(canonical(g.model_dump(mode="json")) + b"\n" for g in manifest.golden)
