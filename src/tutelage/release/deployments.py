"""Every change of which release answers a deployment's clients: one transaction each.

A transition carries the fence it was decided at. If somebody moved the rollout since, the fence
in the row is higher and the late writer gets Conflict: it can't undo what it has not seen.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.errors import Conflict, NotFound
from tutelage.release.rollout import (
    TERMINAL,
    RolloutPlan,
    RolloutState,
    StateName,
    Transition,
    finish,
)
from tutelage.release.rollout import pause as paused
from tutelage.release.rollout import resume as resumed
from tutelage.release.routes import Route as Route
from tutelage.release.routes import active_in, newest_in, require_deployment
from tutelage.release.routes import active_rollout as active_rollout
from tutelage.release.routes import deployments as deployments
from tutelage.release.routes import journal as journal
from tutelage.release.routes import last_rollout as last_rollout
from tutelage.release.routes import route as route
from tutelage.release.routes import state_of as state_of
from tutelage.store.base import Store
from tutelage.store.releases import DeploymentRow, ReleaseRow, RolloutRow, TransitionRow

BACK = "rollback"  # the strategy of a return to the release before
_TAKEN_BACK = ("rolled_back", "aborted")  # the candidate's traffic went back to stable


def ensure_deployment(store: Store, name: str, release: str) -> DeploymentRow:
    """Return the deployment `name`, made with `release` (a full id) as stable if it is new."""
    with store.begin() as session:
        row = session.get(DeploymentRow, name)
        if row is None:
            _require_release(session, release)
            row = DeploymentRow(
                name=name, stable=release, previous=None, salt=secrets.token_hex(32)
            )
            session.add(row)
        return row


def start_rollout(
    store: Store,
    deployment: str,
    candidate: str,
    plan: RolloutPlan,
    *,
    strategy: str = "canary",
) -> RolloutRow:
    """Return a new pending rollout of `candidate` (a full release id).

    Raises Conflict if one is under way or the candidate is stable already.
    """
    with store.begin() as session:
        row = require_deployment(session, deployment, lock=True)
        _require_release(session, candidate)
        _refuse_taken(row, active_in(session, deployment), candidate)
        return _open(session, row, candidate, plan, strategy)


def apply_transition(store: Store, rollout: str, fence: int, transition: Transition) -> RolloutRow:
    """Write one transition and its journal row, if nobody moved the rollout since `fence`.

    Promotion makes the candidate stable in the same transaction.
    Raises Conflict for a stale fence, an ended rollout, or a stable release changed meanwhile.
    """
    with store.begin() as session:
        row = session.get(RolloutRow, rollout)
        if row is None:
            raise NotFound("there is no such rollout", where=rollout)
        require_deployment(session, row.deployment, lock=True)  # first, as every move does
        session.refresh(row, with_for_update=True)
        if row.fence != fence:
            raise Conflict(
                f"the rollout was moved by somebody else (now {row.state}, step {row.step + 1})",
                where=row.deployment,
                fix="Look at it with `tutelage rollout status` and try again",
            )
        _write(session, row, transition)
        return row


def promote(
    store: Store, deployment: str, *, reason: str = "promoted by hand", rollout: str | None = None
) -> RolloutRow:
    """End the rollout under way with its candidate as stable, whatever the evidence.

    `rollout`, here and below, is the id of the one that is meant: Conflict if another is under way.
    """
    return _move(store, deployment, lambda state: finish(state, "promoted", reason), rollout)


def abort(
    store: Store, deployment: str, *, reason: str = "aborted by hand", rollout: str | None = None
) -> RolloutRow:
    """End the rollout under way; all traffic goes to stable."""
    return _move(store, deployment, lambda state: finish(state, "aborted", reason), rollout)


def pause(
    store: Store, deployment: str, *, reason: str = "paused by hand", rollout: str | None = None
) -> RolloutRow:
    """Keep the candidate's share as it is: no step until `resume`; harm still rolls it back."""
    return _move(store, deployment, lambda state: paused(state, reason), rollout)


def resume(
    store: Store, deployment: str, *, reason: str = "resumed by hand", rollout: str | None = None
) -> RolloutRow:
    """Let a paused (or frozen) rollout go on from its step."""
    return _move(store, deployment, lambda state: resumed(state, reason), rollout)


def switch(
    store: Store, deployment: str, release: str, *, reason: str = "made stable by hand"
) -> RolloutRow:
    """Make `release` (a full id) stable at once. A rollout of it that is under way is promoted.

    Raises Conflict if it is stable already or another release's rollout is under way.
    """
    with store.begin() as session:
        row = require_deployment(session, deployment, lock=True)
        _require_release(session, release)
        active = active_in(session, deployment)
        if active is not None and active.candidate == release:
            return _finish(session, active, "promoted", reason)
        _refuse_taken(row, active, release)
        direct = _open(session, row, release, RolloutPlan(steps=(100.0,)), "switch")
        return _finish(session, direct, "promoted", reason)


def rollback(
    store: Store,
    deployment: str,
    *,
    reason: str = "rolled back by hand",
    rollout: str | None = None,
    to: str | None = None,
) -> RolloutRow:
    """End the rollout under way, or, without one, make the previous release stable again.

    `rollout` may then be the id of the newest, if it was promoted. Raises Conflict if there is
    neither, if the newest has taken its candidate back already, and if the previous release has
    been brought back already: a second move would be one that nobody meant. `to`, the full id of
    the release that shall answer, says that it is meant; Conflict if the move leads elsewhere.
    """
    with store.begin() as session:
        row = require_deployment(session, deployment, lock=True)
        active, newest = active_in(session, deployment), newest_in(session, deployment)
        if active is not None:
            found = _meant(active, deployment, rollout)
            if to not in (None, row.stable):
                _refuse_taken(row, active, row.stable)
            return _finish(session, found, "rolled_back", reason)
        if newest is not None and rollout not in (None, newest.id):
            raise Conflict(
                f"rollout {rollout} isn't the newest any more: {newest.id} came since",
                where=deployment,
                fix="Look at it with `tutelage rollout status` before you move it",
            )
        if to is not None:
            _refuse_other(session, row, to)
        elif newest is not None:
            if newest.state in _TAKEN_BACK or (rollout and newest.state != "promoted"):
                _refuse_ended(session, row, newest)
            _refuse_second(session, row)
        if row.previous is None:
            raise Conflict(
                "there is no earlier release to go back to",
                where=deployment,
                fix="`tutelage release list` shows the releases to deploy",
            )
        back = _open(session, row, row.previous, RolloutPlan(steps=(100.0,)), BACK)
        return _finish(session, back, "promoted", reason)


def _refuse_other(session: Session, row: DeploymentRow, to: str) -> None:
    """Raise Conflict if the release before is not `to`."""
    if to == row.previous:
        return
    name, stable = _called(session, to), _called(session, row.stable)
    before = _called(session, row.previous) if row.previous else "none"
    what = f"{name} isn't the release before {stable}, which is {before}"
    raise Conflict(
        f"{name} answers every request already" if to == row.stable else what,
        where=row.name,
        fix="Look at it with `tutelage rollout status`",
    )


def _refuse_ended(session: Session, row: DeploymentRow, newest: RolloutRow) -> None:
    """Raise Conflict: the newest rollout ended without a new stable release, so it was done."""
    moves = select(TransitionRow).where(TransitionRow.rollout == newest.id)
    last = session.scalars(moves.order_by(TransitionRow.fence.desc()).limit(1)).first()
    told = f" at {last.at:%Y-%m-%d %H:%M} UTC ({last.reason})" if last else ""
    answers = f"{_called(session, row.stable)} answers every request"
    raise Conflict(
        f"rollout {newest.id} was already {newest.state.replace('_', ' ')}{told}; {answers}",
        where=row.name,
        fix=_return(session, row) + " makes the one before it stable all the same"
        if row.previous
        else "There is no earlier release",
    )


def _refuse_second(session: Session, row: DeploymentRow) -> None:
    """Raise Conflict if what answers now is what a rollback brought back."""
    last = newest_in(session, row.name, state="promoted")
    if last is None or last.strategy != BACK or row.previous is None:
        return
    stable, left = _called(session, row.stable), _called(session, row.previous)
    raise Conflict(
        f"{stable} has been brought back already, in place of {left}",
        where=row.name,
        fix=_return(session, row) + " makes that one stable again",
    )


def _return(session: Session, row: DeploymentRow) -> str:
    name = _called(session, str(row.previous))
    return f"`tutelage rollout rollback -d {row.name} --to {name}`"


def _called(session: Session, release: str) -> str:
    found = session.get(ReleaseRow, release)
    return found.name if found else release[:12]


def _move(
    store: Store,
    deployment: str,
    move: Callable[[RolloutState], Transition | None],
    rollout: str | None,
) -> RolloutRow:
    with store.begin() as session:
        require_deployment(session, deployment, lock=True)
        row = _meant(active_in(session, deployment), deployment, rollout)
        transition = move(state_of(row))
        if transition is None:
            raise Conflict(
                f"the rollout is {row.state}: that can't be done now",
                where=deployment,
                fix="Look at it with `tutelage rollout status`",
            )
        _write(session, row, transition)
        return row


def _meant(active: RolloutRow | None, deployment: str, rollout: str | None) -> RolloutRow:
    """Return the rollout under way; raise Conflict if there is none or another one is meant."""
    if active is None:
        raise Conflict(
            "no rollout is under way",
            where=deployment,
            fix="Start one with `tutelage rollout start RELEASE`",
        )
    if rollout is not None and active.id != rollout:
        raise Conflict(
            f"another rollout is under way ({active.id}, not {rollout})",
            where=deployment,
            fix="Look at it with `tutelage rollout status` before you move it",
        )
    return active


def _finish(session: Session, row: RolloutRow, to: StateName, reason: str) -> RolloutRow:
    transition = finish(state_of(row), to, reason)
    if transition is None:
        raise Conflict(f"the rollout has ended ({row.state})", where=row.deployment)
    _write(session, row, transition)
    return row


def _refuse_taken(row: DeploymentRow, active: RolloutRow | None, release: str) -> None:
    if active is not None:
        raise Conflict(
            f"a rollout is under way ({active.state}, step {active.step + 1})",
            where=row.name,
            fix="Wait for it, or end it with `tutelage rollout abort`",
        )
    if row.stable == release:
        raise Conflict(
            "this release is stable already",
            where=row.name,
            fix="Name another release; `tutelage release list` shows them",
        )


def _open(
    session: Session, row: DeploymentRow, candidate: str, plan: RolloutPlan, strategy: str
) -> RolloutRow:
    rollout = RolloutRow(
        id=secrets.token_hex(8),
        deployment=row.name,
        baseline=row.stable,
        candidate=candidate,
        strategy=strategy,
        plan=plan.as_dict(),
        state="pending",
        step=0,
        fence=0,
    )
    session.add(rollout)
    session.flush()
    return rollout


def _write(session: Session, row: RolloutRow, transition: Transition) -> None:
    if row.state in TERMINAL:
        raise Conflict(f"the rollout has ended ({row.state})", where=row.deployment)
    moved = replace(state_of(row), state=transition.to, step=transition.step)
    now = utc_now()
    if transition.to == "promoted":
        _make_stable(session, row)
    session.add(
        TransitionRow(
            rollout=row.id,
            fence=row.fence + 1,
            from_state=row.state,
            to_state=transition.to,
            step=transition.step,
            weight=moved.weight,
            reason=transition.reason,
            evidence=_plain(transition.evidence),
            at=now,
        )
    )
    if row.state == "pending" or row.step != transition.step:
        row.step_started_at = now
    row.state, row.step, row.fence = transition.to, transition.step, row.fence + 1
    row.updated_at = now


def _make_stable(session: Session, row: RolloutRow) -> None:
    deployment = require_deployment(session, row.deployment, lock=True)
    if deployment.stable != row.baseline:
        raise Conflict("the stable release changed during the rollout", where=row.deployment)
    deployment.previous, deployment.stable = deployment.stable, row.candidate


def _require_release(session: Session, release: str) -> None:
    if session.get(ReleaseRow, release) is None:
        raise NotFound(
            f"there is no release {release[:12]!r}", fix="`tutelage release list` shows them"
        )


def _plain(evidence: Mapping[str, Any]) -> dict[str, Any]:
    return dict(evidence)
