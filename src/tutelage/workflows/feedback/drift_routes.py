"""Drift over HTTP: where every watch stands and what was kept, and one report with its examples."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from tutelage.core.errors import DataError
from tutelage.serving.admin_guard import guarded
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.wire import HttpError
from tutelage.workflows.context import Context
from tutelage.workflows.feedback.drift import history, show
from tutelage.workflows.feedback.drift_watch import standings


def drift_routes(ctx: Context) -> list[Route]:
    """Return the routes over a project: operators see figures, admins what people asked."""

    async def overview(state: GatewayState, request: Request) -> Any:
        watches = await asyncio.to_thread(standings, ctx)
        return {"watches": watches, "reports": await asyncio.to_thread(history, ctx)}

    async def report(state: GatewayState, request: Request) -> Any:
        try:
            return await asyncio.to_thread(show, ctx, request.path_params["report"])
        except DataError as error:
            raise HttpError(404, error.sentence(), code="report_not_found") from None

    return [
        Route("/admin/drift", guarded("operator", overview)),
        Route("/admin/drift/{report}", guarded("admin", report)),
    ]
