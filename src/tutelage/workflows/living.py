"""Which dataset version stands for one whose rows were erased on a user's wish."""

from __future__ import annotations

from tutelage.core.artifact import Artifact
from tutelage.data.version import ERASED, is_buried, read_manifest
from tutelage.workflows.context import Context, find_artifact


def living(ctx: Context, artifact: Artifact | None) -> Artifact | None:
    """Return the version or, where rows were erased, the one in its place; None: it is gone."""
    while artifact is not None and is_buried(ctx.path_of(artifact)):
        erased = read_manifest(ctx.path_of(artifact))[ERASED]
        artifact = find_artifact(ctx.store, str(erased["replaced_by"]))
    return artifact if artifact is not None and ctx.path_of(artifact).exists() else None
