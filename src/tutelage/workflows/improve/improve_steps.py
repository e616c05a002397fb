"""What each state of a turn does, by the workflows that people use one by one.

Doing a state's work twice gives the same as doing it once: rows are named by their content, stages
that are unchanged are skipped, a training that was cut off goes on, a rollout is started once.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from tutelage.core.artifact import Artifact, utc_now
from tutelage.core.durations import seconds
from tutelage.core.errors import DataError
from tutelage.release.bundle import get_release, manifest_of
from tutelage.release.rollout import ACTIVE, TERMINAL
from tutelage.release.routes import journal
from tutelage.store.annotations import AnnotatorRow, AssignmentRow, BatchRow
from tutelage.store.releases import DeploymentRow, RolloutRow
from tutelage.workflows.context import Context, find_artifact, last_output
from tutelage.workflows.feedback.mine_queue import check_people, mine_and_give
from tutelage.workflows.improve import improve_gate, improve_rows, improve_start
from tutelage.workflows.improve.improve import Parts, decision_of
from tutelage.workflows.improve.improve_turns import Move, Turn, turns
from tutelage.workflows.living import living


def steps() -> Parts:
    """Return the work of every state."""
    return {
        "mine": mine, "review": review, "dataset": dataset, "start": start, "train": train,
        "gate": gate, "release": release, "canary": canary,
    }  # fmt: skip


def facts_at_start(ctx: Context) -> dict[str, Any]:
    """Return what a turn builds on: the data set that the stable release was trained on.

    Raises DataError if there is none, or if decided rows would not be read.
    """
    improve_rows.require_source(ctx)
    before = trained_on(ctx)
    if before is None:
        raise DataError(
            "there is no data set yet to improve on",
            where=str(ctx.workspace.root),
            fix="Run `tutelage run` first",
        )
    return {"previous": before.hash}


def trained_on(ctx: Context) -> Artifact | None:
    """Return the data set that the stable release was trained on, else the last training.

    Without either it is what the last turn built on, else the newest version.
    """
    with ctx.store.session() as session:
        row = session.get(DeploymentRow, ctx.config.name)
    names = []
    if row is not None:
        names.append(manifest_of(get_release(ctx.store, row.stable)).dataset)
    trained = last_output(ctx, "train")
    names += trained.parents if trained is not None else ()
    names += [turn.facts.get("previous") for turn in turns(ctx.store, ctx.config.name, 1)]
    for name in names:
        found = living(ctx, find_artifact(ctx.store, str(name)))
        if found is not None and found.kind == "dataset":
            return found
    return living(ctx, last_output(ctx, "curate"))


def mine(ctx: Context, turn: Turn) -> Move:
    """Give out what is most worth an expert's minute; without experts go on with edits alone."""
    settings = ctx.config.improve.review
    people = settings.people or _active(ctx)
    check_people(ctx, tuple(people))
    if not settings.count or not people:
        why = "improve.review.count is 0" if people else "no annotator is known"
        return Move("dataset", f"nobody is asked: {why}")
    before = _batch_since(ctx, turn)
    if before is not None:  # given out by a worker that was cut off
        return Move("review", f"batch {before} is given out", {"batch": before})
    try:
        given = mine_and_give(ctx, people, settings.count)
    except DataError as error:
        return Move("dataset", f"nobody is asked: {error.what}")
    reason = f"{given['items']} requests given out to {', '.join(people)}"
    return Move("review", reason, {"batch": given["batch"]}, given)


def _active(ctx: Context) -> list[str]:
    with ctx.store.session() as session:
        query = select(AnnotatorRow.name).where(AnnotatorRow.active).order_by(AnnotatorRow.name)
        return list(session.scalars(query))


def _batch_since(ctx: Context, turn: Turn) -> str | None:
    with ctx.store.session() as session:
        query = select(BatchRow.id).where(BatchRow.at >= turn.since, BatchRow.source == "mined")
        return session.scalars(query.order_by(BatchRow.at)).first()


def review(ctx: Context, turn: Turn) -> Move:
    """Wait for the answers that were asked for, as long as the settings say."""
    counts = answers(ctx, str(turn.facts.get("batch")))
    open_, total = counts["open"] + counts["leased"], sum(counts.values())
    told = f"{total - open_} of {total} answers are there"
    if not open_:
        return Move("dataset", told, evidence=dict(counts))
    decision = decision_of(turn)
    if decision is not None and not decision["accept"]:
        return Move("kept", f"given up in review: {decision['why'] or told}")
    wait = ctx.config.improve.review.wait
    if decision is not None:
        return Move("dataset", f"goes on without the rest: {told}", evidence=dict(counts))
    if utc_now() - turn.since >= timedelta(seconds=seconds(wait)):
        return Move("dataset", f"waited {wait}: {told}", evidence=dict(counts))
    return Move(
        "review",
        f"{open_} answers are awaited",
        waits="experts answer what was given out (`tutelage data label todo NAME`); "
        "`tutelage improve resume --accept` goes on without them",
    )


def answers(ctx: Context, batch: str) -> Counter[str]:
    """Return how many of a batch's answers are open, leased, done and skipped."""
    with ctx.store.session() as session:
        rows = session.execute(
            select(AssignmentRow.state, func.count())
            .where(AssignmentRow.batch == batch)
            .group_by(AssignmentRow.state)
        )
        return Counter(dict(rows.tuples().all()))


def dataset(ctx: Context, turn: Turn) -> Move:
    """Freeze a new version: decided rows and accepted edits beside all that was there."""
    made = improve_rows.new_version(ctx, str(turn.facts["previous"]))
    settings = ctx.config.improve
    decision = decision_of(turn)
    if decision is not None and not decision["accept"]:
        return Move("kept", f"given up: {decision['why'] or 'the data set is not wanted'}")
    facts = {"dataset": made.artifact.hash, "new": made.new}
    if made.total < settings.new_rows and decision is None:
        stay = "; they stay for the next one" if made.total else ""
        reason = (
            f"{made.total} new rows, {settings.new_rows} make a turn worthwhile"
            f"{stay}{made.refused()}"
        )
        return Move("kept", reason, facts, made.evidence)
    return Move("start", made.sentence(), facts, made.evidence)


def start(ctx: Context, turn: Turn) -> Move:
    """Decide what training starts from."""
    chosen = improve_start.choose(ctx, _artifact(ctx, turn, "dataset"))
    facts = {"start": chosen.adapter.hash if chosen.adapter else None}
    return Move("train", f"from {chosen.name}: {chosen.why}", facts, chosen.evidence)


def train(ctx: Context, turn: Turn) -> Move:
    """Train on the new version; a run that was cut off goes on."""
    from tutelage.workflows.training import train as training

    data = _artifact(ctx, turn, "dataset")
    if turn.facts.get("start"):
        earlier = _artifact(ctx, turn, "start")
        outcome = training.carry_out(ctx, data, earlier)
    else:
        outcome = training.train(ctx, data)
    meta = outcome.artifact.meta
    figures: dict[str, Any] = {name: meta[name] for name in ("summary", "seconds", "peak_memory_mb")
               if name in meta}  # fmt: skip
    told = f"adapter {outcome.artifact.short}"
    if meta.get("summary"):
        told += f": {meta['summary']}"
    return Move("gate", told, {"adapter": outcome.artifact.hash}, figures)


def gate(ctx: Context, turn: Turn) -> Move:
    """Hold the candidate against the stable release, on the old test rows and on the new ones."""
    data, adapter = _artifact(ctx, turn, "dataset"), _artifact(ctx, turn, "adapter")
    found = improve_gate.hold(ctx, data, adapter, str(turn.facts["previous"]))
    facts = {"evaluation": found.evaluation, "verdict": found.outcome}
    evidence = found.as_dict()
    decision = decision_of(turn)
    if found.outcome == "pass":
        return Move("release", found.sentence, facts, evidence)
    if found.outcome == "fail":
        return Move("kept", found.sentence, facts, evidence)
    if decision is not None:
        who, why = decision["author"], decision["why"]
        if decision["accept"]:
            told = f"{who} accepts it although {found.sentence}"
            return Move("release", told, {**facts, "forced": True}, {**evidence, "why": why})
        return Move("kept", f"{who} rejects it: {why or found.sentence}", facts, evidence)
    unsure = ctx.config.improve.unsure
    if unsure == "stop":
        return Move("kept", found.sentence, facts, evidence)
    if unsure == "canary":
        told = f"live traffic shall decide: {found.sentence}"
        return Move("release", told, {**facts, "forced": True}, evidence)
    waits = f"a person decides (`improve resume --accept` or `--reject`): {found.sentence}"
    return Move("gate", found.sentence, facts, evidence, waits=waits)


def release(ctx: Context, turn: Turn) -> Move:
    """Release the candidate with its evidence."""
    from tutelage.workflows.release.release import release as work

    data, adapter = _artifact(ctx, turn, "dataset"), _artifact(ctx, turn, "adapter")
    evaluation = _artifact(ctx, turn, "evaluation")
    made = work(ctx, data, adapter, evaluation, force=bool(turn.facts.get("forced")))
    name = str(made.artifact.meta["name"])
    facts = {"release": name, "release_id": made.artifact.hash}
    return Move("canary", f"release {name}", facts)


def canary(ctx: Context, turn: Turn) -> Move:
    """Start the rollout once, then wait for how it ends."""
    from tutelage.workflows.release import rollout as rollouts

    name, release_id = str(turn.facts["release"]), str(turn.facts["release_id"])
    row = _rollout(ctx, turn, release_id)
    if row is None and _stable(ctx) == release_id:
        return Move("done", f"{name} is stable already")
    if row is None:
        busy = rollouts.status(ctx)["rollout"]
        if busy is not None and busy["state"] in ACTIVE:
            return Move("canary", "another rollout is under way",
                        waits=f"the rollout of {busy['candidate']} ends first")  # fmt: skip
        status = rollouts.start(ctx, name)["rollout"]
        facts = {"rollout": status["id"]}
        waits = _awaiting(status["strategy"])
        return Move("canary", f"the {status['strategy']} of {name} begins", facts, waits=waits)
    if row.state not in TERMINAL:
        told = f"the {row.strategy} of {name} is {row.state}"
        return Move("canary", told, {"rollout": row.id}, waits=_awaiting(row.strategy))
    why = journal(ctx.store, row.id)[-1].reason
    if row.state == "promoted":
        answer_drift(ctx, turn)
    ended = "done" if row.state == "promoted" else "kept"
    return Move(ended, f"{name} was {row.state.replace('_', ' ')}: {why}", {"rollout": row.id})


def answer_drift(ctx: Context, turn: Turn, now: datetime | None = None) -> None:
    """Let the traffic that an alarm told of be the normal one: the new release has learned it.

    What moved after the turn began is news to the release, so its alarm stands.
    """
    from tutelage.workflows.feedback.drift import accept
    from tutelage.workflows.feedback.drift_watch import alarm_since

    since = alarm_since(ctx, ctx.config.name)
    if since is not None and since < turn.started_at:
        with contextlib.suppress(DataError):  # too few requests yet: the alarm stands
            accept(ctx, until=turn.started_at, note=f"learned in turn {turn.id}",
                   author="improve", now=now)  # fmt: skip


def _awaiting(strategy: str) -> str:
    return f"live traffic decides the {strategy} (`tutelage up` serves it, `rollout status` shows)"


def _rollout(ctx: Context, turn: Turn, release_id: str) -> RolloutRow | None:
    """Return the rollout of this turn's release, started by whoever."""
    with ctx.store.session() as session:
        query = select(RolloutRow).where(
            RolloutRow.deployment == ctx.config.name,
            RolloutRow.candidate == release_id,
            RolloutRow.created_at >= turn.started_at,
        )
        return session.scalars(query.order_by(RolloutRow.created_at.desc())).first()


def _stable(ctx: Context) -> str | None:
    with ctx.store.session() as session:
        row = session.get(DeploymentRow, ctx.config.name)
        return row.stable if row else None


def _artifact(ctx: Context, turn: Turn, name: str) -> Artifact:
    """Return what an earlier state gave. Raises DataError if it is gone."""
    found = living(ctx, find_artifact(ctx.store, str(turn.facts.get(name))))
    if found is None:
        raise DataError(
            f"the turn's {name} is gone",
            where=turn.id,
            fix="Give the turn up with `tutelage improve cancel` and begin a new one",
        )
    return found
