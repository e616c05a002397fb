"""A project with an A/B test under way and the traffic of its users, as the log would hold it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert
from tests.fakes.controller import NOWHERE
from tests.fakes.gateway import gateway_project, make_release

from tutelage.core.artifact import utc_now
from tutelage.release.deployments import apply_transition, start_rollout
from tutelage.release.rollout import RolloutPlan, begin
from tutelage.release.routes import state_of
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.releases import RolloutRow, TransitionRow
from tutelage.workflows.context import Context

_RECORD: dict[str, Any] = {
    "deployment": "colours", "step": 0, "key_name": None, "split": "train", "group_key": "g",
    "messages": [], "response": "", "finish_reason": "stop", "error": None, "first_token_ms": None,
    "prompt_tokens": 40, "completion_tokens": 10, "checks": {},
}  # fmt: skip


@dataclass(frozen=True)
class Traffic:
    """What is drawn. Pairs are (stable, candidate)."""

    requests: int = 2_000
    users: int = 500
    days: float = 9.0
    split: float = 0.5  # as the users really fall
    liked: tuple[float, float] = (0.6, 0.6)  # share of ratings that are good
    rated: tuple[float, float] = (0.3, 0.3)  # share of answers with a rating
    escalated: tuple[float, float] = (0.05, 0.05)
    slower: float = 1.0  # the candidate's times over the stable release's
    named: bool = True  # whether requests say whose they are
    seed: int = 7


def split_project(root: Path, traffic: Traffic, *, url: str = NOWHERE) -> tuple[Context, str]:
    """Return the project, which serves from `url`, and the id of its rollout at 50 %."""
    ctx = gateway_project(root, url, log="none")
    candidate = make_release(ctx, "Candidate: name the colour family.")
    plan = RolloutPlan((50.0,), end="stay")
    row = start_rollout(ctx.store, "colours", candidate.id, plan, strategy="ab")
    move = begin(state_of(row))
    assert move is not None
    apply_transition(ctx.store, row.id, row.fence, move)
    began = utc_now() - timedelta(days=traffic.days)
    with ctx.store.begin() as session:
        kept = session.get(RolloutRow, row.id)
        assert kept is not None
        kept.created_at = began
        for at in session.query(TransitionRow):
            at.at = began
        records, signals = _drawn(traffic, row, began)
        if records:
            session.execute(insert(RecordRow), records)
        if signals:
            session.execute(insert(SignalRow), signals)
    return ctx, row.id


def _drawn(
    traffic: Traffic, row: RolloutRow, began: datetime
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rng = np.random.default_rng(traffic.seed)
    arms = rng.random(traffic.users) < traffic.split
    records, signals = [], []
    for i in range(traffic.requests):
        user = int(rng.integers(traffic.users))
        ours = bool(arms[user]) if traffic.named else bool(rng.random() < traffic.split)
        at = began + timedelta(days=traffic.days * i / traffic.requests)
        records.append(
            _RECORD
            | {
                "id": f"rec_{i}",
                "release": row.candidate if ours else row.baseline,
                "rollout": row.id,
                "arm": "canary" if ours else "stable",
                "user": f"user{user}" if traffic.named else None,
                "status": 500 if rng.random() < 0.01 else 200,
                "latency_ms": float(rng.lognormal(5, 0.3)) * (traffic.slower if ours else 1),
                "at": at,
            }
        )
        if rng.random() < traffic.rated[ours]:
            good = float(rng.random() < traffic.liked[ours])
            signals.append(_signal(f"r{i}", i, "rating", good, at))
        if rng.random() < traffic.escalated[ours]:
            signals.append(_signal(f"e{i}", i, "escalated", True, at))
    return records, signals


def _signal(key: str, number: int, kind: str, value: Any, at: datetime) -> dict[str, Any]:
    return {
        "key": key, "record": f"rec_{number}", "kind": kind, "explicit": kind == "rating",
        "value": {"value": value}, "author": None, "at": at,
    }  # fmt: skip
