"""A project in operation: a canary under way, alerts, use, drift, a mined look, a turn that waits.

All of it is written through the store's own functions and rows; no model and no gateway runs.
"""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.fakes.gateway import begin_rollout, gateway_project, make_release
from tests.unit.serving.log_rows import record

from tutelage.core.artifact import utc_now
from tutelage.feedback.drift.report import DriftReport, Part, Shown
from tutelage.release.deployments import apply_transition
from tutelage.release.rollout import begin
from tutelage.release.routes import active_rollout, state_of
from tutelage.store.alerts import AlertRow
from tutelage.store.mining import MinedRecordRow, MineRow
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_people import add_annotators
from tutelage.workflows.feedback import feedback
from tutelage.workflows.feedback.drift_kept import keep_report
from tutelage.workflows.improve import improve_turns as turns
from tutelage.workflows.serving import monitor

QUESTION = "Which family does colour {} belong to?"
NOWHERE = "http://127.0.0.1:9"


def operations_project(root: Path, backend: str = NOWHERE, *, slow: float = 1.1) -> Context:
    """Return the project `colours`, whose candidate is `slow` times as slow as stable."""
    ctx = gateway_project(root, backend, min_requests=50, min_total=300)
    add_annotators(ctx, ["ana", "bo"])
    answered(ctx, slow=slow)
    alerts(ctx)
    drift(ctx)
    mined(ctx)
    waiting_turn(ctx)
    return ctx


def answered(ctx: Context, *, slow: float = 1.1, count: int = 360) -> str:
    """Log answers before a rollout and in it, with feedback; return the rollout's id."""
    stable = logged(ctx)
    rng, now = random.Random(7), utc_now()
    rows = []
    rollout = begin_rollout(ctx, (10, 50, 100), min_requests=50, min_total=150)
    row = active_rollout(ctx.store, "colours")
    assert row is not None
    move = begin(state_of(row))
    assert move is not None
    apply_transition(ctx.store, row.id, row.fence, move)
    for n in range(count):
        ours = n % 3 == 0
        rows.append(
            _row(
                1000 + n, rng, slow if ours else 1.0, release=row.candidate if ours else stable,
                arm="canary" if ours else "stable", rollout=rollout, step=0,
                at=now + timedelta(seconds=n / 4),
            )
        )  # fmt: skip
    with ctx.store.begin() as session:
        session.add_all(RecordRow(**values) for values in rows)
    for n in range(0, 60, 2):
        feedback.add(ctx, {"record_id": f"rec_op_{1000 + n}", "rating": "up" if n % 6 else "down"})
    return rollout


def logged(ctx: Context, count: int = 80) -> str:
    """Log answers of the last days, one of them corrected; return the stable release."""
    rng, now = random.Random(5), utc_now()
    stable = make_release(ctx, ctx.config.prompt).id
    rows = [
        _row(n, rng, release=stable, at=now - timedelta(days=n % 9, hours=2, seconds=n))
        for n in range(count)
    ]
    with ctx.store.begin() as session:
        session.add_all(RecordRow(**values) for values in rows)
    feedback.add(ctx, {"record_id": "rec_op_3", "edit": "cold", "comment": "it is a blue"}, "mia")
    return stable


def _row(number: int, rng: random.Random, slow: float = 1.0, **changes: Any) -> dict[str, Any]:
    bad = rng.random() < 0.01
    values = {
        "id": f"rec_op_{number}", "deployment": "colours", "key_name": f"shop-{number % 2}",
        "messages": [{"role": "user", "content": QUESTION.format(number)}],
        "response": "" if bad else '{"family": "warm"}', "status": 502 if bad else 200,
        "error": "the engine broke off" if bad else None,
        "latency_ms": rng.lognormvariate(4.5, 0.35) * slow, "prompt_tokens": 40 + number % 17,
        "completion_tokens": 6,
        "checks": {"schema": {"ok": False, "why": "no JSON"}} if number % 40 == 7 else {},
    }  # fmt: skip
    return record(number, **{**values, **changes})


def alerts(ctx: Context) -> None:
    """Let one alert fire and one be over, and silence a rule."""
    now = utc_now()
    common = {"labels": {"deployment": "colours"}, "threshold": 0.05, "count": 3}
    with ctx.store.begin() as session:
        session.add(
            AlertRow(key="a", rule="errors", state="firing", level="error", value=0.08,
                     message="8 % of the requests to colours fail", **common,
                     since=now - timedelta(minutes=12))
        )  # fmt: skip
        session.add(
            AlertRow(key="b", rule="slow", state="resolved", level="warning", value=2.1,
                     message="requests to colours were slow", **common,
                     since=now - timedelta(days=1), ended_at=now - timedelta(hours=20))
        )  # fmt: skip
    names = [row["name"] for row in monitor.rules(ctx)]
    monitor.silence(ctx, names[-1], "2h", reason="the server is moved", author="op")


def drift(ctx: Context) -> str:
    """Keep one comparison that moved; return its id."""
    topics = [
        {"about": ["refund", "card"], "reference": 0.08, "recent": 0.22, "p": 1e-6, "moved": True},
        {"about": ["colour"], "reference": 0.92, "recent": 0.78, "p": 0.02, "moved": False},
    ]
    labels = [{"label": "warm", "reference": 0.5, "recent": 0.64},
              {"label": "cold", "reference": 0.5, "recent": 0.36}]  # fmt: skip
    lengths = {"quantiles": [0.1, 0.25, 0.5, 0.75, 0.9], "reference": [20, 30, 38, 50, 70],
               "recent": [22, 33, 45, 60, 90]}  # fmt: skip
    shown = (Shown("rec_op_3", "recent"),)
    parts = (
        Part("topics", "requests", "topic", 0.14, 1e-6, 4e-6, True, 400, 360,
             sentence="refund, card: 22 % of the requests, 8 % before", examples=shown,
             figures={"topics": topics}),
        Part("label", "answers", "psi", 0.08, 0.03, 0.09, False, 400, 360,
             figures={"labels": labels}),
        Part("request length", "requests", "psi", 0.05, 0.2, 0.4, False, 400, 360,
             figures=lengths),
    )  # fmt: skip
    found = DriftReport(
        True, "Requests about refund, card came 2.8 times as often", "moved", parts,
        "the 400 rows of dataset 3f2a", "the 360 requests since yesterday", (400, 360),
    )  # fmt: skip
    return keep_report(ctx, "colours", found, "check", utc_now())


def mined(ctx: Context) -> str:
    """Keep one look at production; return its id."""
    figures = {
        "records": 440, "texts": 300, "wanted": 41, "known": 0, "left_out": {}, "clusters": [],
    }  # fmt: skip
    now = utc_now()
    with ctx.store.begin() as session:
        session.add(MineRow(id="look1", at=now, until=now, budget=12, seed=7, figures=figures))
        session.flush()
        for rank in range(1, 13):
            reason = {"kind": "low_score", "strength": 0.9, "words": "a user said it is wrong"}
            session.add(
                MinedRecordRow(run="look1", rank=rank, record=f"rec_op_{rank}", item="",
                               split="train" if rank % 4 else "test", score=0.9 - rank / 100,
                               times=1 + rank % 3, cluster="colour", reasons=[reason])
            )  # fmt: skip
    return "look1"


def waiting_turn(ctx: Context) -> str:
    """Leave one turn of the loop waiting for a person at its gate; return its id."""
    turn = turns.begin(ctx.store, ctx.config.name, "31 corrected answers wait")
    for state in ("review", "dataset", "start", "train", "gate"):
        turn = turns.move(ctx.store, turn, turns.Move(state, f"went on to {state}"), seconds=42.0)
    waits = "the rows can't tell the candidate from stable; accept or reject it"
    return turns.move(ctx.store, turn, turns.Move("gate", "too little evidence", waits=waits)).id
