"""Who can be evaluated: releases, adapters trained here or imported, the base model. By name."""

from __future__ import annotations

from sqlalchemy import select

from tutelage.store.artifacts import ArtifactRow
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.evaluate_candidates import KINDS

_MOST = 100  # of each kind, the newest


def candidates(ctx: Context) -> dict[str, str]:
    """Return what `tutelage evaluate` may be given, with what a person reads, newest first."""
    made = select(ArtifactRow).where(ArtifactRow.kind.in_(KINDS))
    made = made.order_by(ArtifactRow.created_at.desc()).limit(_MOST)
    released = select(ReleaseRow.name).order_by(ReleaseRow.created_at.desc()).limit(_MOST)
    with ctx.store.session() as session:
        found = {row.hash[:12]: _title(row) for row in session.scalars(made)}
        found |= {name: f"release {name}" for name in session.scalars(released)}
    return found | {"base": "the base model"}


def _title(row: ArtifactRow) -> str:
    name = str(row.meta.get("name") or row.kind)
    made = row.created_at.isoformat(sep=" ", timespec="minutes")
    return f"{name} {row.hash[:12]}, {made[:16]}"
