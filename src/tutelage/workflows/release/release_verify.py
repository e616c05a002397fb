"""`tutelage release verify`: whether everything a release rests on is still what was released.

By hash: the manifest, the folder's files, the adapter, the base model, the prompt, the dataset
and the evaluation. It repairs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage.core.artifact import canonical, hash_files
from tutelage.core.errors import TutelageError
from tutelage.data.version import ERASED_NOTE, is_buried, load_version, read_manifest
from tutelage.inference.models import locate_model
from tutelage.release import bundle
from tutelage.release.bundle import ReleaseManifest
from tutelage.release.prompts import prompt_hash
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context, find_artifact

_EVALUATION = ("evaluation.json", "rows.jsonl", "golden.json")  # what an evaluation's hash is of


def verify(ctx: Context, name: str | None = None) -> list[dict[str, Any]]:
    """Return one entry a release (all of them if no name is given): its checks and `ok`.

    Each check has part, ok and why. Raises DataError for an unknown name.
    """
    rows = [bundle.get_release(ctx.store, name)] if name else bundle.list_releases(ctx.store)
    return [_one(ctx, row) for row in rows]


def _one(ctx: Context, row: ReleaseRow) -> dict[str, Any]:
    manifest = bundle.manifest_of(row)
    parts: dict[str, Callable[[], str]] = {
        "manifest and adapter": lambda: _sealed(ctx, row, manifest),
        "release folder": lambda: _folder(ctx.workspace.home / row.path, row, manifest),
        "base model": lambda: _base(ctx, manifest),
    }
    if manifest.prompt:
        parts["prompt"] = lambda: _prompt(manifest)
    if manifest.dataset:
        parts["dataset"] = lambda: _dataset(ctx, str(manifest.dataset))
    if manifest.evaluation:
        parts["evaluation"] = lambda: _evaluation(ctx, str(manifest.evaluation))
    checks = [_check(part, look) for part, look in parts.items()]
    ok = all(check["ok"] for check in checks)
    return {"release": row.name, "id": row.id, "ok": ok, "checks": checks}


def _check(part: str, look: Callable[[], str]) -> dict[str, Any]:
    """Return the check; `look` gives what is wrong, or nothing."""
    try:
        why = look()
    except TutelageError as error:
        why = error.sentence()
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
    return {"part": part, "ok": not why, "why": why}


def _sealed(ctx: Context, row: ReleaseRow, manifest: ReleaseManifest) -> str:
    bundle.verify_release(ctx.workspace, row)
    if manifest.adapter is None:
        return ""
    folder = ctx.workspace.home / manifest.adapter.path
    more = sorted(set(bundle.adapter_files(folder)) - set(manifest.adapter.files))
    return f"{folder}: {', '.join(more)} was added since" if more else ""


def _folder(folder: Path, row: ReleaseRow, manifest: ReleaseManifest) -> str:
    try:
        kept = json.loads((folder / bundle.BODY).read_bytes())
    except ValueError:
        return f"{folder / bundle.BODY} is not JSON any more"
    if canonical(kept) != canonical({"id": row.id, **manifest.body()}):
        return f"{folder / bundle.BODY} is not what the store holds"
    lines = b"".join(canonical(g.model_dump(mode="json")) + b"\n" for g in manifest.golden)
    if (folder / bundle.GOLDEN).read_bytes() != lines:
        return f"{folder / bundle.GOLDEN} is not what was released"
    return ""


def _base(ctx: Context, manifest: ReleaseManifest) -> str:
    source = locate_model(manifest.base.spec, ctx.workspace.root)
    if source.digest == manifest.base.digest:
        return ""
    return f"{source.path} is another model than the one released ({manifest.base.digest[:12]})"


def _prompt(manifest: ReleaseManifest) -> str:
    same = prompt_hash(manifest.prompt) == manifest.prompt_hash
    return "" if same else "the prompt's text is not what its hash says"


def _dataset(ctx: Context, digest: str) -> str:
    artifact = find_artifact(ctx.store, digest)
    if artifact is None:
        return f"the store has no dataset {digest[:12]}"
    folder = ctx.path_of(artifact)
    buried = is_buried(folder)  # rows were erased on a user's wish; the hash stays
    found = str(read_manifest(folder)["hash"]) if buried else load_version(folder).hash
    return "" if found == digest else f"{artifact.path} holds another version ({found[:12]})"


def _evaluation(ctx: Context, digest: str) -> str:
    artifact = find_artifact(ctx.store, digest)
    if artifact is None:
        return f"the store has no evaluation {digest[:12]}"
    if (ctx.path_of(artifact) / ERASED_NOTE).is_file():
        return ""  # answers to rows of a forgotten user were taken out
    found = hash_files(ctx.path_of(artifact), _EVALUATION)
    return "" if found == digest else f"{artifact.path} was changed since it was evaluated"
