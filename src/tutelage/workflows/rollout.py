"""Start, watch and end rollouts: plain data in and out, for the CLI, the page and Python."""

from __future__ import annotations

from typing import Any

from tutelage.core import plugins
from tutelage.release import bundle, deployments
from tutelage.release.evidence import count, read_arms
from tutelage.release.rollback import judge
from tutelage.release.rollout import ACTIVE, Counts, RolloutState
from tutelage.store.releases import DeploymentRow, ReleaseRow, RolloutRow
from tutelage.workflows.context import Context
from tutelage.workflows.registry import catch_up
from tutelage.workflows.release import base_release


def start(
    ctx: Context, candidate: str, deployment: str | None = None, *, strategy: str = "canary"
) -> dict[str, Any]:
    """Start a rollout of a release (name or id) and return its status.

    A deployment that does not exist is made, with the base release as stable.
    Raises ModelError if the release's files changed, Conflict if a rollout is under way.
    """
    row = bundle.get_release(ctx.store, candidate)
    bundle.verify_release(ctx.workspace, row)
    name = deployment or ctx.config.name
    if deployment_row(ctx, name) is None:
        base = base_release(ctx)
        deployments.ensure_deployment(ctx.store, name, base.artifact.hash)
    plan = plugins.load("strategies", strategy)().plan(ctx.config.deploy)
    deployments.start_rollout(ctx.store, name, row.id, plan, strategy=strategy)
    catch_up(ctx)
    return status(ctx, name)


def promote(ctx: Context, deployment: str | None = None) -> dict[str, Any]:
    """Make the candidate of the rollout under way stable now; return the status."""
    name = deployment or ctx.config.name
    deployments.promote(ctx.store, name)
    catch_up(ctx)
    return status(ctx, name)


def abort(ctx: Context, deployment: str | None = None) -> dict[str, Any]:
    """End the rollout under way, all traffic to stable; return the status."""
    name = deployment or ctx.config.name
    deployments.abort(ctx.store, name)
    catch_up(ctx)
    return status(ctx, name)


def rollback(ctx: Context, deployment: str | None = None) -> dict[str, Any]:
    """End the rollout under way, or return to the release before; return the status."""
    name = deployment or ctx.config.name
    deployments.rollback(ctx.store, name)
    catch_up(ctx)
    return status(ctx, name)


def switch(ctx: Context, release: str, deployment: str | None = None) -> dict[str, Any]:
    """Make a release stable at once, without a canary; return the status."""
    row = bundle.get_release(ctx.store, release)
    bundle.verify_release(ctx.workspace, row)
    name = deployment or ctx.config.name
    if deployment_row(ctx, name) is None:
        deployments.ensure_deployment(ctx.store, name, row.id)
    else:
        deployments.switch(ctx.store, name, row.id)
    catch_up(ctx)
    return status(ctx, name)


def status(ctx: Context, deployment: str | None = None) -> dict[str, Any]:
    """Return who answers, and the newest rollout with its evidence and journal.

    `rollout` is None if there never was one; its `state` says whether it is under way.
    `sentence` says all of it in one line.
    """
    name = deployment or ctx.config.name
    row = deployment_row(ctx, name)
    if row is None:
        return {
            "deployment": name,
            "stable": None,
            "previous": None,
            "rollout": None,
            "sentence": "nothing serves yet; `tutelage up` starts the gateway",
        }
    newest = deployments.last_rollout(ctx.store, name)
    stable = _name(ctx, row.stable)
    found = _rollout(ctx, newest) if newest else None
    return {
        "deployment": name,
        "stable": stable,
        "previous": _name(ctx, row.previous) if row.previous else None,
        "rollout": found,
        "sentence": _sentence(str(stable), found),
    }


def deployment_row(ctx: Context, name: str) -> DeploymentRow | None:
    """Return the deployment's row, or None."""
    with ctx.store.session() as session:
        return session.get(DeploymentRow, name)


def _rollout(ctx: Context, row: RolloutRow) -> dict[str, Any]:
    state = deployments.state_of(row)
    counts = count(ctx.store, row)
    data: dict[str, Any] = {
        "id": row.id,
        "state": row.state,
        "strategy": row.strategy,
        "step": row.step,
        "steps": list(state.plan.steps),
        "weight": state.weight,
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
            for move in deployments.journal(ctx.store, row.id)
        ],
    }
    if row.state in ACTIVE:
        verdict = judge(*read_arms(ctx.store, row), ctx.config.deploy.limits)
        data["verdict"] = verdict.verdict
        data["reasons"] = list(verdict.reasons)
        data["evidence"] = dict(verdict.evidence)
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
    if state in ("running", "paused"):
        word = "frozen at" if state == "paused" else "gets"
        return (
            f"{candidate} {word} {rollout['weight']:g} % of the requests "
            f"(step {rollout['step'] + 1} of {len(rollout['steps'])}, "
            f"{asked['step']} of {asked['min_step']} seen), {stable} the rest"
        )
    why = rollout["journal"][-1]["reason"] if rollout["journal"] else state
    if state == "promoted":
        return f"{stable} answers every request ({rollout['strategy']}: {why})"
    return f"{stable} answers every request; {candidate} was {state.replace('_', ' ')}: {why}"


def _name(ctx: Context, release: str) -> str:
    with ctx.store.session() as session:
        row = session.get(ReleaseRow, release)
    return row.name if row else release[:12]
