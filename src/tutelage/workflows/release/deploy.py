"""Deployments from the command line and Python: names that clients call, and the servers behind.

What a deployment answers is moved by workflows/release/rollout.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import select

from tutelage.core.errors import DataError, EnvironmentProblem
from tutelage.release import bundle, routes
from tutelage.release.deployment_names import create_deployment, remove_deployment
from tutelage.serving.backends.backend_admin import describe_deployment
from tutelage.serving.launchers.remote_server import RemoteServer
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context
from tutelage.workflows.release import rollout
from tutelage.workflows.release.registry import catch_up


def create(ctx: Context, name: str, release: str | None = None) -> dict[str, Any]:
    """Make a deployment that a release (unset: the base model's) answers; return its status.

    Raises DataError for a name that can't be one, Conflict if it is taken, ModelError if the
    release's files changed.
    """
    if release is None:
        from tutelage.workflows.release.release import base_release

        digest = base_release(ctx).artifact.hash
    else:
        row = bundle.get_release(ctx.store, release)
        bundle.verify_release(ctx.workspace, row)
        digest = row.id
    create_deployment(ctx.store, name, digest)
    catch_up(ctx)
    return rollout.status(ctx, name)


def remove(ctx: Context, name: str) -> dict[str, Any]:
    """Remove a deployment and its rollouts' journals; the records of its requests stay.

    Raises DataError for an unknown one or the project's own, Conflict while a rollout is under way.
    """
    if name == ctx.config.name:
        raise DataError(
            f"{name!r} is the project's own deployment, which `tutelage up` makes anew",
            fix="Move it with `tutelage rollout start`, or remove another one",
        )
    rollouts = remove_deployment(ctx.store, name)
    catch_up(ctx)
    return {"name": name, "removed": True, "rollouts": rollouts}


def all_deployments(ctx: Context) -> list[dict[str, Any]]:
    """Return every deployment: name, stable, previous, state and id of its newest rollout."""
    found = []
    for row in routes.deployments(ctx.store):
        newest = routes.last_rollout(ctx.store, row.name)
        told = {
            "rollout": newest.state if newest else None,
            "rollout_id": newest.id if newest else None,
        }
        found.append({**describe_deployment(ctx.store, row), **told})
    return found


def show(ctx: Context, name: str | None = None) -> dict[str, Any]:
    """Return who answers for a deployment (unset: the project's), and its newest rollout."""
    with ctx.store.session() as session:
        routes.require_deployment(session, name or ctx.config.name)
    return rollout.status(ctx, name)


def backends(ctx: Context) -> dict[str, Any]:
    """Ask each server under `deploy` what it is and what it can do; nothing is changed there.

    A server that is down has a `problem`. `releases` are the project's that it answers for.
    """
    deploy = ctx.config.deploy
    servers = deploy.backends if deploy.engine == "remote" else ()
    with ctx.store.session() as session:
        names = {row.id: row.name for row in session.scalars(select(ReleaseRow))}

    async def look(server: RemoteServer) -> dict[str, Any]:
        known = {"name": server.name, "base_url": server.base_url}
        try:
            found = await server.about()
        except EnvironmentProblem as error:
            return {**known, "up": False, "problem": error.sentence()}
        finally:
            await server.close()
        held = [name for digest, name in names.items() if {digest, name} & server.served]
        return {**known, "up": True, "problem": None, **found, "releases": sorted(held)}

    async def work() -> list[dict[str, Any]]:
        asked = (look(RemoteServer(b, place)) for place, b in enumerate(servers))
        return list(await asyncio.gather(*asked))

    return {"engine": deploy.engine, "backends": asyncio.run(work())}


class DeploymentsDesk:
    """`project.deployments`: what `tutelage deploy …` does."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def all(self) -> list[dict[str, Any]]:
        """Return every deployment and who answers."""
        return all_deployments(self._ctx)

    def show(self, name: str | None = None) -> dict[str, Any]:
        """Return who answers for a deployment, and its newest rollout."""
        return show(self._ctx, name)

    def create(self, name: str, release: str | None = None) -> dict[str, Any]:
        """Make a deployment that a release, or the base model, answers."""
        return create(self._ctx, name, release)

    def remove(self, name: str) -> dict[str, Any]:
        """Remove a deployment; the records of its requests stay."""
        return remove(self._ctx, name)

    def backends(self) -> dict[str, Any]:
        """Ask each server under `deploy` what it is and what it can do."""
        return backends(self._ctx)

    def keep_alive(self) -> list[dict[str, Any]]:
        """Return when each model that is kept alive was last called, and is due."""
        from tutelage.workflows.serving.keep_alive import pulses

        return pulses(self._ctx)
