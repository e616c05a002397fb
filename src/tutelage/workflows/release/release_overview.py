"""Every release at a glance: what it serves, its verdict, its prompt; and where to go back to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from tutelage.release import bundle
from tutelage.release.routes import deployments, route
from tutelage.store.artifacts import ArtifactRow
from tutelage.store.releases import PromptRow, ReleaseRow
from tutelage.workflows.context import Context
from tutelage.workflows.release.deploy import all_deployments


def overview(ctx: Context) -> dict[str, Any]:
    """Return the releases, newest first, and the deployments.

    A release's `serves` lists deployment, role (stable, candidate, before) and the percent of the
    traffic it gets.
    """
    with ctx.store.session() as session:
        rows = list(session.scalars(select(ReleaseRow).order_by(ReleaseRow.created_at.desc())))
        query = select(ArtifactRow.hash, ArtifactRow.meta).where(ArtifactRow.kind == "release")
        facts: dict[str, dict[str, Any]] = dict(session.execute(query).tuples().all())
        named = select(PromptRow.hash, PromptRow.number)
        numbers = dict(session.execute(named).tuples().all())
    serves = _serving(ctx)
    return {
        "releases": [
            _entry(row, facts.get(row.id) or {}, numbers, serves.get(row.id, [])) for row in rows
        ],
        "deployments": all_deployments(ctx),
    }


def _entry(
    row: ReleaseRow, facts: dict[str, Any], numbers: dict[str, int], serves: list[dict[str, Any]]
) -> dict[str, Any]:
    manifest = bundle.manifest_of(row)
    return {
        "name": row.name,
        "id": row.id,
        "kind": row.kind,
        "serves": serves,
        "verdict": str(facts.get("verdict") or "none"),
        "base": manifest.base.name,
        "adapter": manifest.adapter.hash if manifest.adapter else None,
        "prompt": numbers.get(manifest.prompt_hash),
        "evaluation": manifest.evaluation,
        "dataset": manifest.dataset,
        "registry_version": row.registry_version,
        "made_at": row.created_at,
    }


def _serving(ctx: Context) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}

    def add(release: str, deployment: str, role: str, percent: float) -> None:
        told = {"deployment": deployment, "role": role, "percent": percent}
        found.setdefault(release, []).append(told)

    for deployment in deployments(ctx.store):
        now = route(ctx.store, deployment.name)
        add(now.stable, deployment.name, "stable", 100.0 - now.weight)
        if now.canary:
            add(now.canary, deployment.name, "candidate", now.weight)
        if now.previous and now.previous != now.stable:
            add(now.previous, deployment.name, "before", 0.0)
    return found
