"""GET /admin/ab and /admin/ab/tests: A/B tests over HTTP, read in a worker thread."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from tutelage.core.errors import DataError
from tutelage.feedback.ab.study import as_question, study, tests
from tutelage.serving.admin_guard import guarded
from tutelage.serving.state import GatewayState


def ab_routes() -> list[BaseRoute]:
    """Return the routes; they need the role operator."""
    return [
        Route("/admin/ab", guarded("operator", _report)),
        Route("/admin/ab/tests", guarded("operator", _list)),
    ]


async def _list(state: GatewayState, request: Request) -> Any:
    deployment = request.query_params.get("deployment")
    return {"object": "list", "data": await asyncio.to_thread(tests, state.store, deployment)}


async def _report(state: GatewayState, request: Request) -> Any:
    asked = request.query_params
    metrics = asked.get("metrics")
    question = as_question(
        {
            "primary": asked.get("primary"),
            "metrics": tuple(filter(None, map(str.strip, metrics.split(",")))) if metrics else None,
            "alpha": _number(asked.get("alpha"), "alpha"),
            "margin": _number(asked.get("margin"), "margin"),
            "horizon": _number(asked.get("horizon"), "horizon"),
        }
    )
    name = asked.get("deployment") or state.project.name
    return await asyncio.to_thread(
        study, state.store, state.project, question, name, asked.get("rollout")
    )


def _number(text: str | None, name: str) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        raise DataError(f"{name} {text!r} is no number", fix=f"Write {name}=0.05") from None
