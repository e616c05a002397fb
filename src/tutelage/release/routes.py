"""Read which release answers a deployment's clients, its rollouts and their journals.

Only reads: every change is in deployments.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core.errors import NotFound, did_you_mean
from tutelage.release.rollout import ACTIVE, RolloutPlan, RolloutState, StateName
from tutelage.store.base import Store
from tutelage.store.releases import DeploymentRow, RolloutRow, TransitionRow

MEMORY_BEFORE = "memory_before"  # in the evidence of a journal's first move


@dataclass(frozen=True)
class Route:
    """What the router needs: who answers, and what share (percent) the canary gets.

    While a rollout is pending its candidate is named with weight 0, so that it can be loaded.
    `salt` keys the sticky bucket of a user; `fence` is the rollout's, for `apply_transition`.
    `mirrored` percent of requests are answered by both, the canary's answer unseen. `previous`
    was stable until `since`.
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
    mirrored: float = 0.0
    replicas: int = 1  # backends that the rollout goes over
    previous: str | None = None
    since: datetime | None = None


def deployments(store: Store) -> list[DeploymentRow]:
    """Return every deployment, by name."""
    with store.session() as session:
        return list(session.scalars(select(DeploymentRow).order_by(DeploymentRow.name)))


def route(store: Store, deployment: str) -> Route:
    """Return where requests for `deployment` go now. Raises DataError if there is none."""
    with store.session() as session:
        row = require_deployment(session, deployment)
        active = active_in(session, deployment)
        last = (row.previous, row.updated_at)
        if active is None:
            return Route(row.name, row.stable, salt=row.salt, previous=last[0], since=last[1])
        state = state_of(active)
        return Route(
            deployment=row.name,
            stable=row.stable,
            canary=active.candidate,
            weight=state.weight,
            salt=row.salt,
            rollout=active.id,
            step=active.step,
            state=active.state,
            fence=active.fence,
            mirrored=state.mirrored,
            replicas=state.plan.replicas,
            previous=last[0],
            since=last[1],
        )


def state_of(row: RolloutRow) -> RolloutState:
    """Return the state machine's view of a rollout row."""
    state: StateName = row.state  # type: ignore[assignment]
    return RolloutState(RolloutPlan.from_dict(row.plan), state, row.step)


def active_rollout(store: Store, deployment: str) -> RolloutRow | None:
    """Return the rollout that is under way, or None."""
    with store.session() as session:
        return active_in(session, deployment)


def last_rollout(store: Store, deployment: str) -> RolloutRow | None:
    """Return the newest rollout, under way or ended, or None."""
    with store.session() as session:
        return newest_in(session, deployment)


def rollouts(store: Store, deployment: str | None = None, limit: int = 50) -> list[RolloutRow]:
    """Return the newest rollouts, of one deployment or of all."""
    query = select(RolloutRow).order_by(RolloutRow.created_at.desc(), RolloutRow.id).limit(limit)
    if deployment is not None:
        query = query.where(RolloutRow.deployment == deployment)
    with store.session() as session:
        return list(session.scalars(query))


def noted(store: Store, row: RolloutRow) -> frozenset[str]:
    """Return what the journal says of the rollout's step already (RolloutState.noted)."""
    moves = journal(store, row.id)
    words = [m.evidence.get("note") for m in moves if m.step == row.step]
    return frozenset(str(word) for word in words if word)


def journal(store: Store, rollout: str) -> list[TransitionRow]:
    """Return every transition of a rollout, oldest first."""
    with store.session() as session:
        query = select(TransitionRow).where(TransitionRow.rollout == rollout)
        return list(session.scalars(query.order_by(TransitionRow.fence)))


def memory_before(moves: Iterable[TransitionRow]) -> Mapping[str, float] | None:
    """Return how full the engine's memory was before the candidate came, as the journal has it.

    None: the engine did not tell; empty: nothing was near its limit, or it was not written down.
    """
    for move in moves:
        if MEMORY_BEFORE in move.evidence:
            found: Mapping[str, float] | None = move.evidence[MEMORY_BEFORE]
            return found
    return {}


def active_in(session: Session, deployment: str) -> RolloutRow | None:
    """Return the rollout that is under way, read in the caller's transaction, or None."""
    query = select(RolloutRow).where(
        RolloutRow.deployment == deployment, RolloutRow.state.in_(ACTIVE)
    )
    return session.scalars(query.limit(1)).first()


def newest_in(session: Session, deployment: str, state: str | None = None) -> RolloutRow | None:
    """Return the newest rollout (in `state`), read in the caller's transaction, or None."""
    query = select(RolloutRow).where(RolloutRow.deployment == deployment)
    if state is not None:
        query = query.where(RolloutRow.state == state)
    newest_first = query.order_by(RolloutRow.created_at.desc(), RolloutRow.id)
    return session.scalars(newest_first.limit(1)).first()


def require_deployment(session: Session, name: str, *, lock: bool = False) -> DeploymentRow:
    """Return the deployment's row, locked if asked; raise DataError naming the nearest."""
    row = session.get(DeploymentRow, name, with_for_update=lock)
    if row is None:
        known = list(session.scalars(select(DeploymentRow.name)))
        hint = did_you_mean(name, known)
        raise NotFound(
            f"there is no deployment {name!r}",
            fix=f"{hint}Known: {', '.join(sorted(known)) or 'none, run `tutelage up`'}",
        )
    return row


def require_place(store: Store, deployment: str | None, own: str) -> None:
    """Raise NotFound if there is no such deployment; the project's `own` one is always known."""
    if deployment not in (None, own):
        with store.session() as session:
            require_deployment(session, str(deployment))
