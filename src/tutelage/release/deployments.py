"""Which release answers a deployment's clients, and every change of that: one transaction each.

A transition carries the fence it was decided at. If somebody moved the rollout since, the fence
in the row is higher and the late writer gets Conflict: it can't undo what it has not seen.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.errors import Conflict, DataError, nearest
from tutelage.release.rollout import (
    ACTIVE,
    TERMINAL,
    RolloutPlan,
    RolloutState,
    StateName,
    Transition,
    finish,
)
from tutelage.store.base import Store
from tutelage.store.releases import DeploymentRow, ReleaseRow, RolloutRow, TransitionRow


@dataclass(frozen=True)
class Route:
    """What the router needs: who answers, and what share (percent) the canary gets.

    While a rollout is pending its candidate is named with weight 0, so that it can be loaded.
    `salt` keys the sticky bucket of a user; `fence` is the rollout's, for `apply_transition`.
    """

    deployment: str
    stable: str
    canary: str | None = None
    weight: float = 0.0
    salt: str = ""
    rollout: str | None = None
    step: int | None = None
    state: str | None = None
    fence: int | None = None


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


def deployments(store: Store) -> list[DeploymentRow]:
    """Return every deployment, by name."""
    with store.session() as session:
        return list(session.scalars(select(DeploymentRow).order_by(DeploymentRow.name)))


def route(store: Store, deployment: str) -> Route:
    """Return where requests for `deployment` go now. Raises DataError if there is none."""
    with store.session() as session:
        row = _require_deployment(session, deployment)
        active = _active(session, deployment)
        if active is None:
            return Route(row.name, row.stable, salt=row.salt)
        return Route(
            deployment=row.name,
            stable=row.stable,
            canary=active.candidate,
            weight=state_of(active).weight,
            salt=row.salt,
            rollout=active.id,
            step=active.step,
            state=active.state,
            fence=active.fence,
        )


def state_of(row: RolloutRow) -> RolloutState:
    """Return the state machine's view of a rollout row."""
    state: StateName = row.state  # type: ignore[assignment]
    return RolloutState(RolloutPlan.from_dict(row.plan), state, row.step)


def active_rollout(store: Store, deployment: str) -> RolloutRow | None:
    """Return the rollout that is under way, or None."""
    with store.session() as session:
        return _active(session, deployment)


def last_rollout(store: Store, deployment: str) -> RolloutRow | None:
    """Return the newest rollout, under way or ended, or None."""
    with store.session() as session:
        query = select(RolloutRow).where(RolloutRow.deployment == deployment)
        return session.scalars(
            query.order_by(RolloutRow.created_at.desc(), RolloutRow.id).limit(1)
        ).first()


def journal(store: Store, rollout: str) -> list[TransitionRow]:
    """Return every transition of a rollout, oldest first."""
    with store.session() as session:
        query = select(TransitionRow).where(TransitionRow.rollout == rollout)
        return list(session.scalars(query.order_by(TransitionRow.fence)))


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
        row = _require_deployment(session, deployment, lock=True)
        _require_release(session, candidate)
        _refuse_taken(row, _active(session, deployment), candidate)
        return _open(session, row, candidate, plan, strategy)


def apply_transition(store: Store, rollout: str, fence: int, transition: Transition) -> RolloutRow:
    """Write one transition and its journal row, if nobody moved the rollout since `fence`.

    Promotion makes the candidate stable in the same transaction.
    Raises Conflict for a stale fence, an ended rollout, or a stable release changed meanwhile.
    """
    with store.begin() as session:
        row = session.get(RolloutRow, rollout, with_for_update=True)
        if row is None:
            raise DataError("there is no such rollout", where=rollout)
        if row.fence != fence:
            raise Conflict(
                f"the rollout was moved by somebody else (now {row.state}, step {row.step + 1})",
                where=row.deployment,
                fix="Look at it with `tutelage rollout status` and try again",
            )
        _write(session, row, transition)
        return row


def promote(store: Store, deployment: str, *, reason: str = "promoted by hand") -> RolloutRow:
    """End the rollout under way with its candidate as stable, whatever the evidence."""
    return _end(store, deployment, "promoted", reason)


def abort(store: Store, deployment: str, *, reason: str = "aborted by hand") -> RolloutRow:
    """End the rollout under way; all traffic goes to stable."""
    return _end(store, deployment, "aborted", reason)


def switch(
    store: Store, deployment: str, release: str, *, reason: str = "made stable by hand"
) -> RolloutRow:
    """Make `release` (a full id) stable at once. A rollout of it that is under way is promoted.

    Raises Conflict if it is stable already or another release's rollout is under way.
    """
    with store.begin() as session:
        row = _require_deployment(session, deployment, lock=True)
        _require_release(session, release)
        active = _active(session, deployment)
        if active is not None and active.candidate == release:
            return _finish(session, active, "promoted", reason)
        _refuse_taken(row, active, release)
        direct = _open(session, row, release, RolloutPlan(steps=(100.0,)), "switch")
        return _finish(session, direct, "promoted", reason)


def rollback(store: Store, deployment: str, *, reason: str = "rolled back by hand") -> RolloutRow:
    """End the rollout under way, or, without one, make the previous release stable again.

    Raises Conflict if there is neither.
    """
    with store.begin() as session:
        row = _require_deployment(session, deployment, lock=True)
        active = _active(session, deployment)
        if active is not None:
            return _finish(session, active, "rolled_back", reason)
        if row.previous is None:
            raise Conflict(
                "there is no earlier release to go back to",
                where=deployment,
                fix="`tutelage release list` shows the releases to deploy",
            )
        back = _open(session, row, row.previous, RolloutPlan(steps=(100.0,)), "rollback")
        return _finish(session, back, "promoted", reason)


def _end(store: Store, deployment: str, to: StateName, reason: str) -> RolloutRow:
    with store.begin() as session:
        _require_deployment(session, deployment, lock=True)
        active = _active(session, deployment)
        if active is None:
            raise Conflict(
                "no rollout is under way",
                where=deployment,
                fix="Start one with `tutelage rollout start RELEASE`",
            )
        return _finish(session, active, to, reason)


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
    deployment = _require_deployment(session, row.deployment, lock=True)
    if deployment.stable != row.baseline:
        raise Conflict("the stable release changed during the rollout", where=row.deployment)
    deployment.previous, deployment.stable = deployment.stable, row.candidate


def _active(session: Session, deployment: str) -> RolloutRow | None:
    query = select(RolloutRow).where(
        RolloutRow.deployment == deployment, RolloutRow.state.in_(ACTIVE)
    )
    return session.scalars(query.limit(1)).first()


def _require_deployment(session: Session, name: str, *, lock: bool = False) -> DeploymentRow:
    row = session.get(DeploymentRow, name, with_for_update=lock)
    if row is None:
        known = list(session.scalars(select(DeploymentRow.name)))
        near = nearest(name, known)
        hint = f"Did you mean {near!r}? " if near else ""
        raise DataError(
            f"there is no deployment {name!r}",
            fix=f"{hint}Known: {', '.join(sorted(known)) or 'none, run `tutelage up`'}",
        )
    return row


def _require_release(session: Session, release: str) -> None:
    if session.get(ReleaseRow, release) is None:
        raise DataError(
            f"there is no release {release[:12]!r}", fix="`tutelage release list` shows them"
        )


def _plain(evidence: Mapping[str, Any]) -> dict[str, Any]:
    return dict(evidence)
