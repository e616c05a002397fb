"""The demo's operations: releases, requests of two weeks, feedback, rollouts, alerts, keys, scores.

Requests are made up and written to the store as the gateway's log would hold them; nothing of it
was served. Drift and mining are the real ones, run over these requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, insert, select

from tutelage.core.config_alerts import Level
from tutelage.core.errors import DataError
from tutelage.release import bundle, deployments
from tutelage.release.rollout import RolloutPlan, Transition, begin
from tutelage.release.routes import last_rollout, state_of
from tutelage.serving.access.accounts import Account, period_of
from tutelage.serving.access.key_store import create_key, list_keys
from tutelage.serving.monitoring.alert_store import silence
from tutelage.serving.monitoring.alerts import alert_key
from tutelage.serving.monitoring.events import Happening, add_event
from tutelage.store.alerts import AlertRow
from tutelage.store.live import LiveRow
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.releases import DeploymentRow, ReleaseRow, RolloutRow, TransitionRow
from tutelage.store.scores import ScoreRow
from tutelage.store.usage import BudgetRow
from tutelage.workflows.context import find_artifact, register
from tutelage.workflows.demo.demo_cast import EARLIER, LOCAL, PEOPLE, RULE, Cast
from tutelage.workflows.demo.demo_people import answer_first
from tutelage.workflows.feedback import drift, mine, mine_queue
from tutelage.workflows.release import prompt

_DAYS = 14
_A_DAY = 40  # requests
_KEYS = ("coding-desk", "clinic-north", "clinic-south")
_CHUNK = 200  # rows written at once
_NEAR = 0.84  # of its budget that the busiest key has used today


@dataclass(frozen=True)
class _Arm:
    """Who answers in a span of time, how well, and how fast (p50 in milliseconds)."""

    release: str
    arm: str
    right: float
    p50_ms: float
    failing: float = 0.004
    rollout: str | None = None
    step: int | None = None


def fill_serving(cast: Cast) -> None:
    """Write keys, traffic, a rollout that was rolled back, one under way, alerts and scores."""
    stable = _stable(cast)
    records = _traffic(cast, _Arm(stable.id, "stable", 0.84, 310.0), cast.ago(days=_DAYS), _DAYS)
    slow = _release(cast, stable, EARLIER, "no free text")
    failed = _rollout(cast, stable, slow, cast.ago(days=4), slower=2.4, count=70)
    _roll_back(cast, failed)
    better = _release(cast, stable, RULE, "as in the guideline")
    _rollout(cast, stable, better, _later(cast, cast.ago(hours=3)), slower=0.96, count=34)
    _live_scores(cast, records, stable.id)
    _alerts(cast, _budgets(cast))


def fill_looks(cast: Cast) -> None:
    """Look at the traffic for drift and for what is worth a label, and give that to people."""
    ctx = cast.ctx
    drift.check_traffic(ctx, against="training", last=300)
    drift.check_traffic(ctx, against="before", last=120)
    mine.mine(ctx, budget=24)
    given = mine_queue.give_out(ctx, None, (*PEOPLE, LOCAL), shared=True)
    answer_first(cast, given["batch"], PEOPLE[:2])


def _stable(cast: Cast) -> ReleaseRow:
    """Return the release that answers; without a deployment the newest one is made stable."""
    ctx = cast.ctx
    with ctx.store.session() as session:
        row = session.get(DeploymentRow, ctx.config.name)
    known = bundle.list_releases(ctx.store)
    if not known:
        raise DataError("there is no release to serve", fix="Run `tutelage run` first")
    if row is None:
        row = deployments.ensure_deployment(ctx.store, ctx.config.name, known[-1].id)
    return next(one for one in known if one.id == row.stable)


def _later(cast: Cast, at: datetime) -> datetime:
    """Return `at`, or a moment after the newest rollout where that was later."""
    last = last_rollout(cast.ctx.store, cast.ctx.config.name)
    return max(at, last.created_at + timedelta(seconds=10)) if last is not None else at


def _release(cast: Cast, like: ReleaseRow, rule: str, note: str) -> ReleaseRow:
    """Return a release with the same model and one more sentence in its prompt, a version of it."""
    ctx, manifest = cast.ctx, bundle.manifest_of(like)
    text = f"{manifest.prompt.rstrip()}\n{rule}\n"
    version = prompt.draft(ctx, text, by="anna", note=note)
    body = manifest.model_copy(
        update={"name": "", "kind": "tuned", "prompt": text, "prompt_hash": version["hash"]}
    )
    made = bundle.create_release(ctx.store, ctx.workspace, body, project=ctx.config.name)
    found = find_artifact(ctx.store, body.evaluation) if body.evaluation else None
    verdict = str(found.meta.get("verdict")) if found else "none"
    facts = {"verdict": verdict, "registry_version": made.registry_version}
    register(ctx.store, bundle.release_artifact(made, facts))
    return made


def _budgets(cast: Cast) -> float:
    """Give every key a budget and book what it used today; return the busiest one's share of it."""
    ctx, day = cast.ctx, cast.now.replace(hour=0, minute=0, second=0, microsecond=0)
    tokens = func.sum(RecordRow.prompt_tokens + RecordRow.completion_tokens)
    query = select(RecordRow.key_name, tokens).where(RecordRow.at >= day)
    with ctx.store.session() as session:
        used = dict(session.execute(query.group_by(RecordRow.key_name)).tuples().all())
    limit = max(100, 100 * round(used.get(_KEYS[0], 0) / _NEAR / 100))
    for name in _KEYS:
        if name not in {key["name"] for key in list_keys(ctx.store)}:
            budget = {"unit": "tokens", "per": "day", "limit": limit}
            create_key(ctx.store, name, requests_per_minute=120, budgets=[budget])
        account = Account(name, None, "tokens", "day", limit)
        spent = float(used.get(name, 0))
        with ctx.store.begin() as session:
            session.merge(
                BudgetRow(account=account.id, period=period_of("day", cast.now), spent=spent)
            )
    return used.get(_KEYS[0], 0) / limit


def _traffic(cast: Cast, arm: _Arm, since: datetime, days: float, count: int = 0) -> list[str]:
    """Write requests spread over `days` from `since` with their feedback; return their ids."""
    wanted = count or int(_A_DAY * days)
    records, signals = [], []
    for number in range(wanted):
        at = since + timedelta(days=days * (number + cast.dice.random()) / wanted)
        record = _record(cast, arm, min(at, cast.now))
        records.append(record)
        if record["status"] == 200:
            signals += _signals(cast, record)
    with cast.ctx.store.begin() as session:
        for start in range(0, len(records), _CHUNK):
            session.execute(insert(RecordRow), records[start : start + _CHUNK])
        if signals:
            session.execute(insert(SignalRow), signals)
    return [record["id"] for record in records if record["status"] == 200]


def _record(cast: Cast, arm: _Arm, at: datetime) -> dict[str, Any]:
    dice = cast.dice
    text = dice.choice(cast.fresh)
    failed = dice.random() < arm.failing
    answer = "" if failed else cast.answer(text, arm.right)
    kind = "" if failed else cast.output.parse(answer).problem or ""
    latency = arm.p50_ms * dice.lognormvariate(0, 0.28)
    return {
        "id": f"demo-{dice.getrandbits(64):016x}",
        "deployment": cast.ctx.config.name,
        "release": arm.release,
        "rollout": arm.rollout,
        "step": arm.step,
        "arm": arm.arm,
        "user": f"user-{dice.randrange(60):02d}",
        "key_name": dice.choices(_KEYS, (6, 3, 1))[0],
        "split": dice.choices(("train", "validation", "test"), (8, 1, 1))[0],
        "group_key": f"g{dice.randrange(60):02d}",
        "messages": [{"role": "user", "content": text}],
        "response": answer,
        "finish_reason": "error" if failed else "stop",
        "status": 503 if failed else 200,
        "error": "the engine did not answer in time" if failed else None,
        "latency_ms": latency,
        "first_token_ms": latency * 0.4,
        "prompt_tokens": 120 + len(text) // 4,
        "completion_tokens": 0 if failed else 8,
        "entropy": None,
        "checks": {} if failed else {"schema": {"ok": not kind, "why": kind}},
        "at": at,
    }


def _signals(cast: Cast, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a user said of an answer: nothing mostly, else a rating, and a correction."""
    dice, text = cast.dice, record["messages"][0]["content"]
    if dice.random() > 0.22:
        return []
    right = cast.output.render(cast.truth.get(text, ""))
    good = record["response"] == right
    found = [_signal(cast, record, "rating", 1.0 if good else 0.0)]
    if not good and dice.random() < 0.7:
        found.append(_signal(cast, record, "edit", right))
    if not good and dice.random() < 0.2:
        found.append(_signal(cast, record, "comment", "The cause is named in the text."))
    return found


def _signal(cast: Cast, record: dict[str, Any], kind: str, value: Any) -> dict[str, Any]:
    return {
        "key": f"demo-{cast.dice.getrandbits(64):016x}",
        "record": record["id"],
        "kind": kind,
        "explicit": True,
        "value": {"value": value},
        "author": record["user"],
        "at": min(record["at"] + timedelta(minutes=2), cast.now),
    }


def _rollout(
    cast: Cast, stable: ReleaseRow, row: ReleaseRow, at: datetime, *, slower: float, count: int
) -> RolloutRow:
    """Start a canary of a release at `at` and write the requests that it saw, and its baseline."""
    ctx = cast.ctx
    plan = RolloutPlan((5.0, 25.0, 50.0, 100.0), min_requests=30, min_total=120)
    started = deployments.start_rollout(ctx.store, ctx.config.name, row.id, plan)
    ready = begin(state_of(started))
    assert ready is not None
    moved = deployments.apply_transition(ctx.store, started.id, started.fence, ready)
    held = Transition(
        "running", 1, 25.0, "30 requests at 5 % held every limit", {"verdict": "pass"}
    )
    moved = deployments.apply_transition(ctx.store, moved.id, moved.fence, held)
    span = min(0.5, (cast.now - at).total_seconds() / 86_400)
    early = at + timedelta(days=span * 0.4)
    canary = _Arm(row.id, "canary", 0.86, 300.0 * slower, 0.004, started.id, 0)
    base = _Arm(stable.id, "stable", 0.84, 310.0, 0.004, started.id, 0)
    for arm, number, since, share in (
        (canary, 31, at, 0.4), (base, 160, at, 0.4), (canary, count, early, 0.6),
        (base, count * 3, early, 0.6),
    ):  # fmt: skip
        step = 0 if since == at else 1
        told = _Arm(arm.release, arm.arm, arm.right, arm.p50_ms, arm.failing, arm.rollout, step)
        _traffic(cast, told, since, span * share, number)
    _set_times(cast, moved.id, [at, at + timedelta(seconds=40), early])
    return moved


def _roll_back(cast: Cast, row: RolloutRow) -> None:
    """End a rollout as its tests would: what was seen, and back to stable."""
    with cast.ctx.store.session() as session:
        fresh = session.get_one(RolloutRow, row.id)
    seen = "p90 latency of the candidate is worse than 1.2 times the baseline's (e-value 412)"
    back = Transition("rolled_back", fresh.step, 0.0, seen, {"verdict": "fail", "e_latency": 412.0})
    ended = deployments.apply_transition(cast.ctx.store, fresh.id, fresh.fence, back)
    began = cast.ago(days=4)
    times = [began, began + timedelta(seconds=40), began + timedelta(hours=5)]
    _set_times(cast, ended.id, [*times, began + timedelta(hours=9)])


def _set_times(cast: Cast, rollout: str, times: Sequence[datetime]) -> None:
    with cast.ctx.store.begin() as session:
        row = session.get_one(RolloutRow, rollout)
        moves = session.query(TransitionRow).filter_by(rollout=rollout).order_by(TransitionRow.id)
        for move, at in zip(moves, times[-moves.count() :], strict=False):
            move.at = at
        row.created_at, row.step_started_at, row.updated_at = times[0], times[-1], times[-1]


def _live_scores(cast: Cast, records: Sequence[str], release: str) -> None:
    """Write a score for one answer in three."""
    with cast.ctx.store.begin() as session:
        for place, record in enumerate(records[::3]):
            at = cast.ago(days=_DAYS * (1 - place * 3 / len(records)))
            session.add(
                LiveRow(
                    record=record, deployment=cast.ctx.config.name, release=release, rollout=None,
                    arm="stable", at=at, state="done", owner=None, until=None, scored_at=at,
                    drawn_at=at,
                )
            )  # fmt: skip
            value = 1.0 if cast.dice.random() < 0.86 else 0.0
            session.add(
                ScoreRow(
                    evaluation=None, item=record, candidate=release, metric="valid", value=value,
                    evidence={} if value else {"why": "not one of the labels"}, source="rule",
                    at=at,
                )
            )  # fmt: skip


def _alerts(cast: Cast, used: float) -> None:
    """Write what happened, two alerts that fire, two that ended, and one silence."""
    ctx, name = cast.ctx, cast.ctx.config.name
    near = f"{_KEYS[0]} has used {used * 100:.0f} % of its tokens of today"
    happened: tuple[tuple[str, Level, str, float], ...] = (
        ("gateway.started", "info", "the gateway takes requests", 340.0),
        ("engine.crashed", "error", "the engine ended with signal 9", 200.0),
        ("engine.restarted", "info", "the engine was started again after 1.4 s", 199.9),
        ("rollout.rolled_back", "error", "p90 latency is worse than 1.2 times the baseline's", 87),
        ("budget.near", "warning", near, 0.5),
    )
    with ctx.store.begin() as session:
        for kind, level, text, hours in happened:
            add_event(
                session,
                Happening(kind, text, level, name, at=cast.ago(hours=hours)),
                weighed=True,
            )
        for rule, level, text, value, limit, hours, lasted in (
            ("budget-near", "warning", near, used, 0.8, 0.5, None),
            ("drift", "warning", "requests moved away from the training data", None, None, 9.0,
             None),
            ("engine-crashed", "error", "the engine ended with signal 9", None, None, 200.0, 0.1),
            ("error-rate", "error", "7.1 % of the requests fail", 0.071, 0.05, 200.1, 0.3),
        ):  # fmt: skip
            labels = {"deployment": name}
            since = cast.ago(hours=hours)
            ended = since + timedelta(hours=lasted) if lasted is not None else None
            session.add(
                AlertRow(
                    key=alert_key(rule, labels), rule=rule, labels=labels, level=level,
                    state="resolved" if ended else "firing", message=text, value=value,
                    threshold=limit, count=3, since=since, seen_at=ended or cast.now,
                    told_at=since, ended_at=ended,
                )
            )  # fmt: skip
    until = cast.now + timedelta(hours=8)
    silence(ctx.store, "disk", until, reason="the disk is being enlarged", author="chloe")
