"""Gather what a model card tells, from the store and the artifacts; it renders nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import Artifact, library_versions
from tutelage.data.version import is_buried, load_version
from tutelage.inference.models import ModelSource
from tutelage.release import bundle
from tutelage.release.card import CardFacts, summary
from tutelage.release.prompts import prompt_hash
from tutelage.store.artifacts import ArtifactRow, ParentRow
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context, find_artifact, made_from

_PLAN, _EVALUATION = "plan.json", "evaluation.json"


def gather(
    ctx: Context,
    name: str,
    base: dict[str, Any],
    *,
    adapter: Artifact | None = None,
    prompt: str = "",
    evaluation: str | None = None,
    release: str | None = None,
) -> CardFacts:
    """Return what is known of a model: `base` is about_base's, the others are full hashes."""
    dataset = made_from(ctx.store, adapter)
    output = ctx.config.output
    lineage = {
        "release": release or "",
        "adapter": adapter.hash if adapter else "",
        "dataset": dataset.hash if dataset else "",
        "evaluation": evaluation or "",
        "prompt": prompt_hash(prompt) if prompt.strip() else "",
    }
    return CardFacts(
        name=name,
        project=ctx.config.name,
        task=ctx.config.task,
        kind=kind_of(adapter),
        base=base,
        prompt=prompt.strip(),
        answer={"field": output.field, "labels": output.labels},
        adapter=adapter.meta if adapter else None,
        data=_data(ctx, dataset),
        training=_training(ctx, adapter),
        evaluation=_evaluation(ctx, evaluation),
        lineage=lineage,
        versions=(adapter.versions if adapter else None) or library_versions(),
    )


def kind_of(adapter: Artifact | None) -> str:
    """Return base, tuned or imported."""
    if adapter is None:
        return "base"
    return "imported" if adapter.meta.get("origin") == "imported" else "tuned"


def about_base(base: ModelSource) -> dict[str, Any]:
    """Return the base model's name, digest and, where known, hub id and licence; no path."""
    about: dict[str, Any] = {"name": base.name, "digest": base.digest}
    if base.kind == "hub":
        about["hub"] = base.spec
    licence = _licence(base)
    return about | ({"licence": licence} if licence else {})


def newest_evaluation(ctx: Context, adapter: Artifact) -> Artifact | None:
    """Return the newest evaluation of this adapter, or None."""
    query = (
        select(ArtifactRow.hash)
        .join(ParentRow, ParentRow.child == ArtifactRow.hash)
        .where(ParentRow.parent == adapter.hash, ArtifactRow.kind == "evaluation")
        .order_by(ArtifactRow.created_at.desc())
        .limit(1)
    )
    with ctx.store.session() as session:
        found = session.scalars(query).first()
    return find_artifact(ctx.store, found) if found else None


def authors(named: str | None) -> list[str]:
    """Return the people that a row's origin names."""
    return [name for part in (named or "").split(",") if (name := part.strip())]


def brief(ctx: Context, row: ReleaseRow) -> str:
    """Return what a release is and what its evidence says, in two or three sentences."""
    manifest = bundle.manifest_of(row)
    base = {"name": manifest.base.name, "digest": manifest.base.digest}
    return summary(
        CardFacts(
            row.name, ctx.config.name, ctx.config.task, row.kind, base,
            evaluation=_evaluation(ctx, manifest.evaluation), lineage={"release": row.id},
        )
    )  # fmt: skip


def _licence(base: ModelSource) -> str | None:
    """Return the licence that the model's own files name, or None."""
    if base.kind == "gguf":
        from tutelage.inference.gguf_header import read_header

        found = read_header(base.path).metadata.get("general.license")
        return str(found) if found else None
    readme = base.path / "README.md"
    if not readme.is_file():
        return None
    lines = readme.read_text("utf-8", errors="replace").split("---", 2)[1:2]
    for line in "".join(lines).splitlines():
        if line.startswith("license:"):
            return line.partition(":")[2].strip().strip("'\"") or None
    return None


def _data(ctx: Context, dataset: Artifact | None) -> dict[str, Any] | None:
    if dataset is None or not ctx.path_of(dataset).is_dir() or is_buried(ctx.path_of(dataset)):
        return None
    version = load_version(ctx.path_of(dataset))
    manifest = version.manifest
    origins: Counter[str] = Counter()
    people: set[str] = set()
    for row in version.stream("train"):
        origins[row.origin.kind] += 1
        people.update(authors(row.origin.author))
    leak = manifest.get("leak") or {}
    return {
        "counts": manifest["counts"],
        "files": len(manifest.get("sources") or ()),
        "origins": dict(sorted(origins.items())),
        "annotators": len(people),
        "licence": manifest.get("licence"),
        "leak": _leak(leak) if leak else "",
    }


def _leak(leak: dict[str, Any]) -> str:
    text = (
        f"of {leak['test_rows']} test rows {leak['exact']} equal a train row and {leak['near']} "
        f"nearly do (similarity {leak['threshold']:g} or more)"
    )
    return text if leak.get("semantic") is None else f"{text}, {leak['semantic']} say the same"


def _training(ctx: Context, adapter: Artifact | None) -> dict[str, Any] | None:
    if adapter is None or kind_of(adapter) == "imported":
        return None
    plan = _read(ctx.path_of(adapter) / _PLAN) or {}
    return {
        "headline": plan.get("headline"),
        "summary": adapter.meta.get("summary"),
        "choices": plan.get("choices") or (),
    }


def _evaluation(ctx: Context, digest: str | None) -> dict[str, Any] | None:
    artifact = find_artifact(ctx.store, digest) if digest else None
    return _read(ctx.path_of(artifact) / _EVALUATION) if artifact else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found
