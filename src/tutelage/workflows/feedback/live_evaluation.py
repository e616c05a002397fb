"""Live evaluation from the project's side: who scores, scoring logged traffic now, the report.

The gateway's own worker is feedback/live/hook.py; both share the store, the draw and the budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from tutelage.core.artifact import utc_now
from tutelage.core.config_live import LiveEvaluation
from tutelage.core.durations import seconds
from tutelage.core.errors import ConfigError, DataError, did_you_mean
from tutelage.core.events import Event
from tutelage.evaluation.judges.asker import Limits
from tutelage.evaluation.judges.rubric import OVERALL, make_rubric, settings_of
from tutelage.evaluation.judges.trust import panel_id, trusted
from tutelage.feedback.live.checks import checks_of, own_scorers
from tutelage.feedback.live.draw import Shares, waiting
from tutelage.feedback.live.judging import Judging, allowance, spent
from tutelage.feedback.live.scoring import Parts, Pass, Scoring
from tutelage.feedback.live.standings import (
    SHOWN,
    Key,
    Standings,
    release_names,
    replaced,
    scored_releases,
)
from tutelage.feedback.live.watch import served_releases
from tutelage.inference.base import Decoding
from tutelage.release.bundle import get_release
from tutelage.serving.hooks import Hook
from tutelage.serving.state import GatewayState
from tutelage.store.live import LiveRow
from tutelage.store.records import RecordRow
from tutelage.store.scores import ScoreRow
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.judge import make_judges

STAGE = "live"


def live_hooks(ctx: Context, state: GatewayState) -> tuple[Hook, ...]:
    """Return the gateway's worker, if the project asks for live evaluation.

    Raises ConfigError for a scorer or judge that can't be had.
    """
    if ctx.config.live_evaluation is None:
        return ()
    from tutelage.feedback.live.hook import LiveEvaluator

    return (LiveEvaluator(state, make_parts(ctx)),)


def make_parts(ctx: Context) -> Parts:
    """Return what scores live answers by the project's settings, or by the defaults."""
    settings = ctx.config.live_evaluation or LiveEvaluation()
    scorers = own_scorers(ctx.config, ctx.workspace.root)
    judging = make_judging(ctx, settings) if settings.judge else None
    _check_least(ctx, settings)
    return Parts(settings, checks_of(ctx.config, scorers), judging)


def make_judging(ctx: Context, settings: LiveEvaluation) -> Judging:
    """Return the judge of live answers: the project's, its rubric, without references."""
    asked = settings_of(ctx.config)
    rubric = replace(make_rubric(ctx.config, "pointwise"), reference=False)
    decoding = Decoding(temperature=asked.temperature, max_tokens=asked.answer_tokens)
    limits = Limits(decoding, asked.concurrency, settings.tokens)
    return Judging(make_judges(ctx, asked), rubric, limits, asked.panel)


def _check_least(ctx: Context, settings: LiveEvaluation) -> None:
    named = [s if isinstance(s, str) else s.get("as", s["name"]) for s in settings.scorers]
    known = [*settings.checks, *map(str, named), *([OVERALL] if settings.judge else [])]
    for metric in settings.least:
        if metric not in known:
            raise ConfigError(
                f"live_evaluation.least names {metric!r}, which is not scored",
                where=str(ctx.workspace.config_path),
                fix=f"{did_you_mean(metric, known)}Scored are {', '.join(known)}",
            )


def score_log(
    ctx: Context,
    *,
    since: str = "24h",
    share: float | None = None,
    tokens: int | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Score logged answers of the last `since` now, without a gateway; return what was done.

    `share` goes before the settings', `tokens` before the day's budget, and after about `limit`
    answers it stops. What was scored before is not scored again; interrupted, it goes on where
    it was.
    """
    parts = _unpaced(make_parts(ctx), tokens)
    shares = Shares(share, share) if share is not None else Shares.of(parts.settings)
    scoring, total = Scoring(ctx.store, parts, shares), Pass()
    scoring.draw(_ago(since))
    left = waiting(ctx.store)
    goal = left if limit is None else min(left, limit)
    try:
        while total.scored + total.skipped < goal:
            done = scoring.step()
            if not done:
                break
            total.add(done)
            count = total.scored + total.skipped
            ctx.emit(Event(STAGE, "progress", "answers", count, max(goal, count)))
    finally:
        scoring.close()
    if total.problem:
        ctx.emit(Event(STAGE, "warning", f"some were not judged: {total.problem}"))
    return {
        "scored": total.scored,
        "skipped": total.skipped,
        "judged": total.judged,
        "tokens": total.tokens,
        "problem": total.problem,
        "waiting": waiting(ctx.store),
    }


def _unpaced(parts: Parts, tokens: int | None) -> Parts:
    """Return parts whose judge may spend the rest of the day's budget at once."""
    judging = parts.judging
    if judging is None:
        return parts
    limits = judging.limits if tokens is None else replace(judging.limits, tokens=tokens)
    return replace(parts, judging=replace(judging, limits=limits, paced=False))


def report(ctx: Context, release: str | None = None) -> dict[str, Any]:
    """Return what the scores say of every release that has some, or of one.

    Raises DataError for an unknown release.
    """
    settings = ctx.config.live_evaluation or LiveEvaluation()
    only = get_release(ctx.store, release).id if release else None
    before, names = replaced(ctx.store), release_names(ctx.store)
    standings = Standings(ctx.store, settings)
    standings.read(scored_releases(ctx.store))
    served = set(served_releases(ctx.store))
    found = [
        _of_release(standings, key, before.get(key), names, served=key in served)
        for key in standings.known()
        if only is None or key[1] == only
    ]
    found.sort(key=lambda one: (one["deployment"], not one["serves"], one["release"]))
    return {
        "on": ctx.config.live_evaluation is not None,
        "releases": found,
        "drawn": _counts(ctx),
        "judge": _judge(ctx, settings),
        "risk": {"shown": SHOWN, "alpha": settings.alpha, "drop": settings.drop},
    }


def _of_release(
    standings: Standings, key: Key, before: str | None, names: Mapping[str, str], *, served: bool
) -> dict[str, Any]:
    found = standings.of(key, before)
    return {
        "deployment": key[0],
        "release": names.get(key[1], key[1][:12]),
        "id": key[1],
        "serves": served,
        "before": names.get(before, before[:12]) if before else None,
        "fallen": [one.metric for one in found if one.fallen],
        "metrics": [{**one.as_dict(), "sentence": one.sentence(names)} for one in found],
    }


def _counts(ctx: Context) -> dict[str, Any]:
    with ctx.store.session() as session:
        states = (LiveRow.state, LiveRow.problem)
        rows = session.execute(select(*states, func.count()).group_by(*states)).all()
    return {
        "waiting": sum(count for state, _, count in rows if state == "waiting"),
        "scored": sum(count for state, _, count in rows if state == "done"),
        "skipped": {problem: count for state, problem, count in rows if state == "skipped"},
    }


def _judge(ctx: Context, settings: LiveEvaluation) -> dict[str, Any] | None:
    """Return what the judge may and did spend today, and whether experts agree with it."""
    if not settings.judge:
        return None
    now, judging = utc_now(), make_judging(ctx, settings)
    who = panel_id(judging.judges, judging.panel)
    ok, why = trusted(ctx.store, who, judging.rubric, settings=settings_of(ctx.config))
    return {
        "judge": who,
        "tokens_today": spent(ctx.store, now),
        "tokens_so_far": allowance(settings.tokens, now),
        "tokens_a_day": settings.tokens,
        "trusted": ok,
        "why": why,
    }


def worst(
    ctx: Context,
    *,
    metric: str | None = None,
    release: str | None = None,
    since: str = "7d",
    limit: int = 20,
) -> dict[str, Any]:
    """Return the answers with the lowest scores, each with the reason, the newest first.

    Raises DataError for a metric that no answer was scored by, if others were.
    """
    query = (
        select(
            ScoreRow.item, ScoreRow.metric, ScoreRow.value, ScoreRow.evidence, LiveRow.release,
            LiveRow.deployment, LiveRow.at, RecordRow.messages, RecordRow.response,
        )
        .join(LiveRow, LiveRow.record == ScoreRow.item)
        .join(RecordRow, RecordRow.id == ScoreRow.item)
        .where(
            ScoreRow.evaluation.is_(None), ScoreRow.value < 1, LiveRow.at >= _ago(since),
        )
        .order_by(ScoreRow.value, LiveRow.at.desc())
        .limit(limit)
    )  # fmt: skip
    if metric is not None:
        _require_scored(ctx, metric)
        query = query.where(ScoreRow.metric == metric)
    if release is not None:
        query = query.where(LiveRow.release == get_release(ctx.store, release).id)
    names = release_names(ctx.store)
    with ctx.store.session() as session:
        rows = session.execute(query).all()
    return {
        "answers": [
            {
                "record": row.item,
                "deployment": row.deployment,
                "release": names.get(row.release, row.release[:12]),
                "at": row.at.isoformat(),
                "metric": row.metric,
                "value": row.value,
                "why": str((row.evidence or {}).get("why", "")),
                "evidence": row.evidence,
                "request": "\n".join(t["content"] for t in row.messages if t["role"] != "system"),
                "answer": row.response,
            }
            for row in rows
        ]
    }


def _require_scored(ctx: Context, metric: str) -> None:
    with ctx.store.session() as session:
        of_live = ScoreRow.item == LiveRow.record
        metrics = select(ScoreRow.metric).join(LiveRow, of_live).distinct()
        known = sorted(session.scalars(metrics.where(ScoreRow.evaluation.is_(None))))
    if known and metric not in known:
        raise DataError(
            f"no answer is scored by {metric!r}",
            fix=f"{did_you_mean(metric, known)}Scored are {', '.join(known)}",
        )


def _ago(since: str) -> datetime:
    try:
        return utc_now() - timedelta(seconds=seconds(since))
    except (ValueError, OverflowError) as error:
        raise DataError(f"since: {error}", fix="Write 30m, 24h or 7d, for one") from error
