"""Start, watch, pause and end rollouts: plain data in and out, for the CLI, the page and Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tutelage.release import bundle, deployments
from tutelage.release.evidence import count
from tutelage.release.rollout import ACTIVE, LIVE, Counts, RolloutState
from tutelage.release.routes import (
    journal,
    last_rollout,
    require_place,
    rollouts,
    state_of,
)
from tutelage.release.standing import standing
from tutelage.release.strategies.base import plan_of
from tutelage.store.releases import DeploymentRow, ReleaseRow, RolloutRow
from tutelage.workflows.context import Context
from tutelage.workflows.release.gateway_state import gateway_state
from tutelage.workflows.release.registry import catch_up
from tutelage.workflows.release.release import base_release


def start(
    ctx: Context,
    candidate: str,
    deployment: str | None = None,
    *,
    strategy: str | None = None,
    steps: Sequence[float] | None = None,
    split: float | None = None,
) -> dict[str, Any]:
    """Start a rollout of a release (name or id) and return its status.

    `strategy`, `steps` (percent, a canary's) and `split` (percent, an A/B's) go before those of
    the settings. The project's own deployment is made if need be, with the base release as stable.
    Raises ModelError if the release's files changed, Conflict if a rollout is under way,
    DataError for steps that do not rise to 100.
    """
    row = bundle.get_release(ctx.store, candidate)
    bundle.verify_release(ctx.workspace, row)
    name = _known(ctx, deployment)
    chosen = strategy or ctx.config.deploy.strategy
    plan = plan_of(ctx.config.deploy, chosen, steps=steps, split=split)
    if deployment_row(ctx, name) is None:
        base = base_release(ctx)
        deployments.ensure_deployment(ctx.store, name, base.artifact.hash)
    deployments.start_rollout(ctx.store, name, row.id, plan, strategy=chosen)
    catch_up(ctx)
    return status(ctx, name)


def promote(
    ctx: Context, deployment: str | None = None, *, rollout: str | None = None
) -> dict[str, Any]:
    """Make the candidate of the rollout under way stable now; return the status.

    Here and below `rollout` is the id of the one that is meant: Conflict if it is another's turn.
    """
    return _move(ctx, deployments.promote, deployment, rollout)


def abort(
    ctx: Context, deployment: str | None = None, *, rollout: str | None = None
) -> dict[str, Any]:
    """End the rollout under way, all traffic to stable; return the status."""
    return _move(ctx, deployments.abort, deployment, rollout)


def pause(
    ctx: Context, deployment: str | None = None, *, rollout: str | None = None
) -> dict[str, Any]:
    """Take no further step until `resume`; harm still rolls it back. Return the status."""
    return _move(ctx, deployments.pause, deployment, rollout)


def resume(
    ctx: Context, deployment: str | None = None, *, rollout: str | None = None
) -> dict[str, Any]:
    """Let a paused or frozen rollout go on; return the status."""
    return _move(ctx, deployments.resume, deployment, rollout)


def rollback(
    ctx: Context,
    deployment: str | None = None,
    *,
    rollout: str | None = None,
    to: str | None = None,
) -> dict[str, Any]:
    """End the rollout under way, or return to the release before; return the status.

    Raises Conflict if that has happened already, unless `to` (name or id) is the release before.
    """
    if to is None:
        return _move(ctx, deployments.rollback, deployment, rollout)
    move = partial(deployments.rollback, to=bundle.get_release(ctx.store, to).id)
    return _move(ctx, move, deployment, rollout)


def _move(
    ctx: Context,
    move: Callable[..., RolloutRow],
    deployment: str | None,
    rollout: str | None,
) -> dict[str, Any]:
    name = deployment or ctx.config.name
    move(ctx.store, name, rollout=rollout)
    catch_up(ctx)
    return status(ctx, name)


def history(ctx: Context, deployment: str | None = None) -> list[dict[str, Any]]:
    """Return the newest rollouts, of one deployment or of all: what moved and how it ended.

    Raises DataError for a deployment that there is not.
    """
    _known(ctx, deployment)
    found = []
    for row in rollouts(ctx.store, deployment):
        moves = journal(ctx.store, row.id)
        found.append(
            {
                "id": row.id,
                "deployment": row.deployment,
                "strategy": row.strategy,
                "candidate": _name(ctx, row.candidate),
                "baseline": _name(ctx, row.baseline),
                "state": row.state,
                "weight": state_of(row).weight,
                "started_at": row.created_at.isoformat(timespec="seconds"),
                "why": moves[-1].reason if moves else "",
            }
        )
    return found


def switch(ctx: Context, release: str, deployment: str | None = None) -> dict[str, Any]:
    """Make a release stable at once, without a canary; return the status."""
    row = bundle.get_release(ctx.store, release)
    bundle.verify_release(ctx.workspace, row)
    name = _known(ctx, deployment)
    if deployment_row(ctx, name) is None:
        deployments.ensure_deployment(ctx.store, name, row.id)
    else:
        deployments.switch(ctx.store, name, row.id)
    catch_up(ctx)
    return status(ctx, name)


def status(ctx: Context, deployment: str | None = None, *, judged: bool = True) -> dict[str, Any]:
    """Return who answers, and the newest rollout with its evidence (unless told) and journal.

    `rollout` is None if there never was one; its `state` says whether it is under way.
    `sentence` says all of it in one line. `gateway` says so if none runs here, unless told.
    """
    name = _known(ctx, deployment)
    row = deployment_row(ctx, name)
    if row is None:
        return {
            "deployment": name,
            "stable": None,
            "previous": None,
            "rollout": None,
            "sentence": "nothing serves yet; `tutelage up` starts the gateway",
        }
    newest = last_rollout(ctx.store, name)
    stable = _name(ctx, row.stable)
    found = _rollout(ctx, newest, judged) if newest else None
    return {
        "deployment": name,
        "stable": stable,
        "previous": _name(ctx, row.previous) if row.previous else None,
        "rollout": found,
        "sentence": _sentence(str(stable), found),
        **(_gateway(ctx) if judged and found and found["state"] in ACTIVE else {}),
    }


def _gateway(ctx: Context) -> dict[str, str]:
    """Return what keeps a rollout from moving, if no gateway of this machine does it."""
    found = gateway_state(ctx)
    return {} if found["state"] == "ready" else {"gateway": str(found["says"])}


def _known(ctx: Context, deployment: str | None) -> str:
    """Return the deployment's name, by default the project's; raise DataError for a typo."""
    require_place(ctx.store, deployment, ctx.config.name)
    return deployment or ctx.config.name


def deployment_row(ctx: Context, name: str) -> DeploymentRow | None:
    """Return the deployment's row, or None."""
    with ctx.store.session() as session:
        return session.get(DeploymentRow, name)


def _rollout(ctx: Context, row: RolloutRow, judged: bool) -> dict[str, Any]:
    state = state_of(row)
    counts = count(ctx.store, row)
    data: dict[str, Any] = {
        "id": row.id,
        "state": row.state,
        "strategy": row.strategy,
        "step": row.step,
        "steps": list(state.plan.steps),
        "weight": state.weight,
        "mirrored": state.mirrored,
        "candidate": _name(ctx, row.candidate),
        "baseline": _name(ctx, row.baseline),
        "requests": {
            "step": counts.step,
            "total": counts.total,
            "min_step": state.plan.min_requests,
            "min_total": state.plan.min_total,
        },
        "progress": progress(state, counts),
        "started_at": row.created_at.isoformat(timespec="seconds"),
        "journal": [
            {
                "at": move.at.isoformat(timespec="seconds"),
                "from_state": move.from_state,
                "to_state": move.to_state,
                "step": move.step,
                "weight": move.weight,
                "reason": move.reason,
                "evidence": move.evidence,
            }
            for move in journal(ctx.store, row.id)
        ],
    }
    if judged and row.state in ACTIVE:
        data |= standing(ctx.store, row, ctx.config.deploy.limits)
    return data


def progress(state: RolloutState, counts: Counts) -> float:
    """Return how far a rollout is, 0..1: steps done, and the canary requests of this one."""
    if state.terminal:
        return 1.0
    if state.state == "pending":
        return 0.0
    steps, least = len(state.plan.steps), state.plan.min_requests
    return (state.step + min(1.0, counts.step / least)) / steps


def _sentence(stable: str, rollout: dict[str, Any] | None) -> str:
    if rollout is None:
        return f"{stable} answers every request"
    state, candidate = rollout["state"], rollout["candidate"]
    asked = rollout["requests"]
    if state == "pending":
        return f"{candidate} is being loaded; {stable} answers every request"
    if state in LIVE:
        seen = (
            f"(step {rollout['step'] + 1} of {len(rollout['steps'])}, "
            f"{asked['step']} seen, {asked['min_step']} needed)"
        )
        stands = "" if state == "running" else f"; the rollout is {state}"
        if rollout["mirrored"]:
            return (
                f"{candidate} sees {rollout['mirrored']:g} % of the requests {seen}, "
                f"{stable} answers them all{stands}"
            )
        return (
            f"{candidate} gets {rollout['weight']:g} % of the requests {seen}, "
            f"{stable} the rest{stands}"
        )
    why = rollout["journal"][-1]["reason"] if rollout["journal"] else state
    if state == "promoted":
        return f"{stable} answers every request ({rollout['strategy']}: {why})"
    if state == "completed":
        return f"{stable} answers every request; the trial of {candidate} is completed: {why}"
    return f"{stable} answers every request; {candidate} was {state.replace('_', ' ')}: {why}"


def _name(ctx: Context, release: str) -> str:
    with ctx.store.session() as session:
        row = session.get(ReleaseRow, release)
    return row.name if row else release[:12]
