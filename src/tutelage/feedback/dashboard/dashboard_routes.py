"""GET /admin/dashboard: the dashboard's figures over HTTP, read in a worker thread."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from tutelage.feedback.dashboard.board import board
from tutelage.serving.access.usage_span import span
from tutelage.serving.admin_guard import guarded
from tutelage.serving.state import GatewayState


def dashboard_routes() -> list[BaseRoute]:
    """Return the route; it needs the role operator."""
    return [Route("/admin/dashboard", guarded("operator", _board))]


async def _board(state: GatewayState, request: Request) -> Any:
    asked = request.query_params
    ends = span(asked.get("since"), asked.get("until"))
    name = asked.get("deployment") or state.project.name
    return await asyncio.to_thread(
        board, state.store, state.project, name, ends, asked.get("every")
    )
