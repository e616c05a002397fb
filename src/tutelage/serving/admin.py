"""What an operator can ask and do over HTTP, gathered: releases here, keys in key_admin.py.

Every database call runs in a worker thread, off the hot path.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import select
from starlette.requests import Request
from starlette.routing import Route

from tutelage.release.bundle import list_releases
from tutelage.serving.access.key_admin import key_routes
from tutelage.serving.admin_guard import guarded
from tutelage.serving.state import GatewayState
from tutelage.store.releases import DeploymentRow


def admin_routes() -> list[Route]:
    """Return the routes under /admin."""
    return [
        Route("/admin/releases", guarded("operator", _releases)),
        *key_routes(),
    ]


async def _releases(state: GatewayState, request: Request) -> Any:
    def work() -> list[dict[str, Any]]:
        with state.store.session() as session:
            serving = {row.stable: row.name for row in session.scalars(select(DeploymentRow))}
        return [
            {
                "id": row.id,
                "name": row.name,
                "kind": row.kind,
                "serves": serving.get(row.id),
                "dataset": row.manifest.get("dataset"),
                "evaluation": row.manifest.get("evaluation"),
                "created_at": row.created_at,
            }
            for row in list_releases(state.store)
        ]

    return {"object": "list", "data": await asyncio.to_thread(work)}
