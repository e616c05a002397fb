"""What was changed in a span of time, to be marked: moves of traffic between releases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select

from tutelage.store.base import Store
from tutelage.store.releases import ReleaseRow, RolloutRow, TransitionRow


def changes(
    store: Store, deployment: str, since: datetime, until: datetime
) -> list[dict[str, Any]]:
    """Return the moves of a deployment's traffic, oldest first, numbered from 1.

    A line of the journal that moves nothing (why a step is not taken) is left out.
    """
    query = (
        select(TransitionRow, RolloutRow)
        .join(RolloutRow, RolloutRow.id == TransitionRow.rollout)
        .where(
            RolloutRow.deployment == deployment,
            TransitionRow.at >= since,
            TransitionRow.at < until,
        )
        .order_by(TransitionRow.at, TransitionRow.id)
    )
    with store.session() as session:
        rows = session.execute(query).all()
        names = dict(session.execute(select(ReleaseRow.id, ReleaseRow.name)).tuples().all())
    found: list[dict[str, Any]] = []
    last: dict[str, tuple[str, float]] = {}
    for move, rollout in rows:
        stands = (move.to_state, move.weight)
        if last.get(rollout.id, (move.from_state, None)) == stands:
            continue
        last[rollout.id] = stands
        candidate = names.get(rollout.candidate, rollout.candidate[:12])
        found.append(
            {
                "number": len(found) + 1,
                "at": move.at.isoformat(timespec="seconds"),
                "rollout": rollout.id,
                "strategy": rollout.strategy,
                "release": candidate,
                "state": move.to_state,
                "weight": move.weight,
                "text": _text(move, candidate),
                "why": move.reason,
            }
        )
    return found


def _text(move: TransitionRow, candidate: str) -> str:
    match move.to_state:
        case "promoted":
            return f"{candidate} answers every request"
        case "rolled_back" | "aborted" | "completed":
            return f"{candidate} {move.to_state.replace('_', ' ')}"
        case "running":
            return f"{candidate} gets {move.weight:g} %"
        case state:
            return f"the rollout of {candidate} is {state}"
