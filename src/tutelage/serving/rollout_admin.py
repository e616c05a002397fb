"""Rollouts over HTTP: list, start, pause, resume, promote, abort, roll back.

Every database call runs in a worker thread, off the hot path. A move names its rollout, so that
nobody moves another than the one looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from tutelage.core.errors import Conflict, DataError, NotFound
from tutelage.release import deployments as changes
from tutelage.release.bundle import get_release
from tutelage.release.rollout import ACTIVE
from tutelage.release.routes import journal, rollouts, state_of
from tutelage.release.standing import standing
from tutelage.release.strategies.base import plan_of
from tutelage.serving.access.keys import caller_of
from tutelage.serving.admin_guard import author_of, guarded
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.body import read_json, require_fields
from tutelage.store.base import Store
from tutelage.store.releases import RolloutRow

Move = Callable[..., RolloutRow]
_MOVES: dict[str, tuple[Move, str]] = {
    "promote": (changes.promote, "promoted"),
    "abort": (changes.abort, "aborted"),
    "pause": (changes.pause, "paused"),
    "resume": (changes.resume, "resumed"),
    "rollback": (changes.rollback, "rolled back"),
}

_ASKED = ("release", "deployment", "strategy", "steps", "split")  # of a new rollout


def rollout_routes() -> list[Route]:
    """Return the routes under /admin/rollouts; all of them need the role operator.

    A key that is limited to some deployments sees and moves the rollouts of those alone.
    """
    return [
        Route("/admin/rollouts", guarded("operator", _list, scoped=True)),
        Route("/admin/rollouts", guarded("operator", _start, scoped=True), methods=["POST"]),
        Route("/admin/rollouts/{id}", guarded("operator", _one, scoped=True)),
        Route(
            "/admin/rollouts/{id}/{move}", guarded("operator", _move, scoped=True), methods=["POST"]
        ),
    ]


def describe(store: Store, row: RolloutRow) -> dict[str, Any]:
    """Return a rollout with its journal, as plain data."""
    state = state_of(row)
    return {
        "id": row.id,
        "deployment": row.deployment,
        "baseline": row.baseline,
        "candidate": row.candidate,
        "strategy": row.strategy,
        "state": row.state,
        "step": row.step,
        "steps": list(state.plan.steps),
        "weight": state.weight,
        "mirrored": state.mirrored,
        "created_at": row.created_at,
        "journal": [
            {
                "from": move.from_state,
                "to": move.to_state,
                "step": move.step,
                "weight": move.weight,
                "reason": move.reason,
                "evidence": move.evidence,
                "at": move.at,
            }
            for move in journal(store, row.id)
        ],
    }


async def _list(state: GatewayState, request: Request) -> Any:
    store, deployment = state.store, request.query_params.get("deployment")
    caller = caller_of(request)

    def work() -> list[dict[str, Any]]:
        found = rollouts(store, deployment)
        return [describe(store, row) for row in found if caller.sees(row.deployment)]

    return {"object": "list", "data": await asyncio.to_thread(work)}


async def _one(state: GatewayState, request: Request) -> Any:
    def work() -> dict[str, Any]:
        row = _find(state.store, request)
        found = describe(state.store, row)
        if row.state in ACTIVE:
            found |= standing(state.store, row, state.project.deploy.limits)
        return found

    return await asyncio.to_thread(work)


async def _start(state: GatewayState, request: Request) -> Any:
    body, project = await read_json(request), state.project
    require_fields(body, _ASKED, "A rollout")
    release = body.get("release")
    if not isinstance(release, str) or not release:
        raise DataError("the body names no release", fix='Send {"release": "NAME"}')
    deployment = str(body.get("deployment") or project.name)
    if not caller_of(request).sees(deployment):
        raise NotFound(f"there is no deployment {deployment!r}", fix="Name one of the key's own")
    strategy = str(body.get("strategy") or project.deploy.strategy)
    shares = {name: body.get(name) for name in ("steps", "split")}

    def work() -> dict[str, Any]:
        plan = plan_of(project.deploy, strategy, **shares)
        candidate = get_release(state.store, release)
        row = changes.start_rollout(state.store, deployment, candidate.id, plan, strategy=strategy)
        return describe(state.store, row)

    return await _told(state, work)


async def _move(state: GatewayState, request: Request) -> Any:
    word = request.path_params["move"]
    if word not in _MOVES:
        raise NotFound(f"a rollout can't {word!r}", fix=f"Known: {', '.join(_MOVES)}")
    move, done = _MOVES[word]
    who = author_of(request)

    to = request.query_params.get("to") if word == "rollback" else None

    def work() -> dict[str, Any]:
        row = _find(state.store, request)
        if state_of(row).terminal and word != "rollback":
            raise Conflict(f"the rollout has ended ({row.state})", where=row.deployment)
        named = {"to": get_release(state.store, to).id} if to else {}
        moved = move(
            state.store, row.deployment, reason=f"{done} by {who} over HTTP", rollout=row.id,
            **named,
        )  # fmt: skip
        return describe(state.store, moved)

    return await _told(state, work)


async def _told(state: GatewayState, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `work` gives once this gateway's routes follow it."""
    result = await asyncio.to_thread(work)
    if state.refresh is not None:
        await state.refresh()
    return result


def _find(store: Store, request: Request) -> RolloutRow:
    rollout = request.path_params["id"]
    with store.session() as session:
        row = session.get(RolloutRow, rollout)
    if row is None or not caller_of(request).sees(row.deployment):
        raise NotFound(f"there is no rollout {rollout!r}", fix="GET /admin/rollouts lists them")
    return row
