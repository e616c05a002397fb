"""`tutelage improve`: one turn of the loop, as far as it goes without waiting for anybody.

    mine ──> review ──> dataset ──> start ──> train ──> gate ──> release ──> canary ──> done
               │ people    │ too few                     │ people               │ live traffic
               └ waits     └──> kept (stable stays) <────┴──────────────────────┘

Each state's work can be done again without harm, and what it gave is written with the move to the
next state in one transaction. So a turn that was killed anywhere goes on from its state. What the
states do is improve_steps.py's; here is who may work, when it stops, and what people decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from tutelage.core.artifact import utc_now
from tutelage.core.errors import Conflict, DataError, PlanRefused, ReleaseRefused, TutelageError
from tutelage.core.events import Event, EventKind
from tutelage.core.lock import sole
from tutelage.feedback.schedule import quiet_until
from tutelage.store.annotations import DraftRow
from tutelage.store.judgements import JudgeVerdictRow
from tutelage.store.live import LiveRow
from tutelage.workflows.context import Context, find_artifact
from tutelage.workflows.improve import improve_turns as kept
from tutelage.workflows.improve.improve_turns import STATES, Hold, Move, Turn
from tutelage.workflows.living import living

Work = Callable[[Context, Turn], Move]
Parts = Mapping[str, Work]
STAGE = "improve"
BY_HAND = "asked for by hand"
QUIET = "quiet hours"  # how the wait for their end begins
_WORKING = ("dataset", "start", "train", "gate")  # what costs minutes or tokens
_BUILT = ("start", "train", "gate", "release")  # what rests on the turn's data set


def improve(
    ctx: Context,
    *,
    why: str = BY_HAND,
    parts: Parts | None = None,
    patient: bool = False,
    begin: bool = True,
    now: Callable[[], datetime] = utc_now,
) -> Turn:
    """Begin a turn, or go on with the one under way, until it waits or ends; return it.

    `patient` keeps to the quiet hours, as the schedule does; without `begin` one that was
    cancelled meanwhile, and there is no other, is a DataError. Raises Conflict if another process
    works on it, and whatever a state's work raises: the turn then stays where it is.
    """
    from tutelage.workflows.improve.improve_steps import facts_at_start, steps

    busy = kept.busy(kept.current(ctx.store, ctx.config.name))
    with sole(ctx.workspace.home / "improve.lock", busy):  # before a turn begins: it has a worker
        turn = kept.current(ctx.store, ctx.config.name) if begin else _require_current(ctx)
        if turn is None:
            turn = kept.begin(ctx.store, ctx.config.name, why, facts_at_start(ctx), now())
            ctx.emit(Event(STAGE, "note", f"turn {turn.id} begins: {why}"))
        return _carry_on(ctx, turn, steps() if parts is None else parts, patient, now)


def resume(ctx: Context, *, parts: Parts | None = None) -> Turn:
    """Go on with the turn under way; raise DataError if there is none."""
    return improve(ctx, parts=parts, begin=False)


def _carry_on(
    ctx: Context, turn: Turn, parts: Parts, patient: bool, now: Callable[[], datetime]
) -> Turn:
    """Do the work of one state after the other until the turn waits or ends."""
    with Hold(ctx.store, turn) as hold:
        turn = kept.find(ctx.store, turn.project, turn.id)
        while not turn.ended:
            step = _held_back(ctx, turn, now() if patient else None) or _without_erased(ctx, turn)
            try:
                step = step or parts[turn.state](_stopping(ctx, hold), turn)
            except (PlanRefused, ReleaseRefused) as refusal:
                step = Move("kept", refusal.sentence())
            except Exception as error:
                if hold.lost:  # what was cut off is nobody's any more
                    turn = _again(ctx, turn)
                    continue
                told = error.sentence() if isinstance(error, TutelageError) else _unexpected(error)
                # it was cancelled meanwhile, or the disk is full
                with suppress(Conflict, SQLAlchemyError):
                    kept.failed(ctx.store, turn, told, holder=hold.name, seconds=hold.spent())
                raise
            try:
                turn = kept.move(
                    ctx.store, turn, step, holder=hold.name, seconds=hold.spent(), now=now()
                )
            except Conflict:  # a person decided or cancelled meanwhile: go on from there
                turn = _again(ctx, turn)
                continue
            _tell(ctx, turn, step)
            if turn.waits:
                break
    return turn


def _stopping(ctx: Context, hold: Hold) -> Context:
    """Return the context with events that stop the work once the turn was cancelled."""

    def emit(event: Event) -> None:
        ctx.emit(event)
        if hold.lost:
            raise Conflict("the turn was cancelled, or taken over by another process")

    return replace(ctx, emit=emit)


def _unexpected(error: Exception) -> str:
    return f"an unexpected {type(error).__name__}: {str(error)[:300]}"


def _again(ctx: Context, turn: Turn) -> Turn:
    """Return the turn as it is now; raise Conflict if nothing but its worker changed."""
    found = kept.find(ctx.store, turn.project, turn.id)
    if found.fence == turn.fence:
        raise Conflict("the turn was taken over by another process", where=turn.id,
                       fix="Look at it with `tutelage improve status`")  # fmt: skip
    return found


def _tell(ctx: Context, turn: Turn, step: Move) -> None:
    kind: EventKind = "done" if turn.ended or turn.waits else "note"
    told = f"waits: {turn.waits}" if turn.waits else step.reason
    ctx.emit(Event(STAGE, kind, told, data={"state": turn.state, "turn": turn.id}))


def _held_back(ctx: Context, turn: Turn, now: datetime | None) -> Move | None:
    """Return the wait that quiet hours or a spent budget mean, or None."""
    if turn.state not in _WORKING:
        return None
    settings = ctx.config.improve
    until = quiet_until(settings.quiet, now) if now is not None else None
    if until is not None:
        told = f"{QUIET} until {until:%H:%M}"
        return Move(turn.state, told, waits=told)
    if turn.facts.get("waived"):
        return None
    decision = decision_of(turn)
    spent = _spent(ctx, turn)
    if spent is None:
        return None
    if decision is not None:
        if decision["accept"]:
            facts = {"waived": True, "decision": None}  # it was about the budget alone
            return Move(turn.state, "goes on over its budget", facts)
        return Move("kept", f"given up: {decision['why'] or spent}")
    waits = f"{spent}; `tutelage improve resume --accept` goes on all the same"
    return Move(turn.state, spent, waits=waits)


def _without_erased(ctx: Context, turn: Turn) -> Move | None:
    """Return the move back to the start if rows that the turn builds on were erased since.

    A candidate that learned them is not released: training begins anew without them.
    """
    data = str(turn.facts.get("dataset"))
    found = living(ctx, find_artifact(ctx.store, data)) if turn.state in _BUILT else None
    if found is None or found.hash == data:
        return None
    told = "rows of the data set were erased since: training begins anew without them"
    return Move("start", told, {"dataset": found.hash})


def _spent(ctx: Context, turn: Turn) -> str | None:
    """Return which budget is used up, in words, or None."""
    budget = ctx.config.improve.budget
    if turn.seconds >= budget.minutes * 60:
        return f"the budget of {budget.minutes:g} minutes is spent"
    tokens = tokens_since(ctx, turn.started_at)
    if tokens and tokens >= budget.tokens:
        return f"the budget of {budget.tokens:,} tokens is spent ({tokens:,} were used)"
    return None


def tokens_since(ctx: Context, at: datetime) -> int:
    """Return the tokens that judges and the teacher's drafts have taken since `at`.

    What live evaluation asks has a budget of its own (live_evaluation.budget).
    """
    tokens = func.sum(JudgeVerdictRow.prompt_tokens + JudgeVerdictRow.completion_tokens)
    live = select(LiveRow.record).where(LiveRow.record == JudgeVerdictRow.item)
    with ctx.store.session() as session:
        judged = session.scalar(select(tokens).where(JudgeVerdictRow.at >= at, ~live.exists()))
        drafted = session.scalar(select(func.sum(DraftRow.tokens)).where(DraftRow.at >= at))
    return int(judged or 0) + int(drafted or 0)


def decision_of(turn: Turn) -> dict[str, Any] | None:
    """Return what a person decided in this state: {accept, why, author}, or None."""
    found = turn.facts.get("decision")
    if isinstance(found, dict) and found.get("state") == turn.state:
        return found
    return None


def asks(turn: Turn) -> bool:
    """Return whether the turn waits for what a person decides."""
    by_itself = turn.state == "canary" or str(turn.waits).startswith(QUIET)
    return turn.waits is not None and not by_itself


def decide(ctx: Context, accept: bool, *, why: str = "", author: str | None = None) -> Turn:
    """Keep a person's decision on what the turn waits for; `improve` then goes on with it.

    Accepting means: go on without the missing answers, over the budget, or release although the
    rows show too little. Raises DataError if the turn waits for no decision.
    """
    from tutelage.workflows.release.prompt import whoami

    turn = _require_current(ctx)
    if not asks(turn):
        what = f"it is in {turn.state!r}" + (f", {turn.waits}" if turn.waits else "")
        raise DataError(
            f"the turn waits for no decision: {what}",
            where=turn.id,
            fix="`tutelage rollout promote` and `abort` decide a canary"
            if turn.state == "canary" else
            "Go on with `tutelage improve resume`, or give it up with `tutelage improve cancel`",
        )  # fmt: skip
    who = author or whoami()
    told = ("accepted" if accept else "rejected") + (f": {why.strip()}" if why.strip() else "")
    facts = {"decision": {"state": turn.state, "accept": accept, "why": why, "author": who}}
    return kept.move(ctx.store, turn, Move(turn.state, told, facts), author=who)


def cancel(ctx: Context, *, why: str = "", author: str | None = None) -> Turn:
    """Give the turn under way up; labels and data sets stay, a running rollout is left alone."""
    from tutelage.workflows.release.prompt import whoami

    turn = _require_current(ctx)
    told = "cancelled" + (f": {why.strip()}" if why.strip() else "")
    return kept.move(ctx.store, turn, Move("cancelled", told), author=author or whoami())


def _require_current(ctx: Context) -> Turn:
    turn = kept.current(ctx.store, ctx.config.name)
    if turn is None:
        raise DataError(
            "no turn of the loop is under way", where=ctx.config.name,
            fix="`tutelage improve` begins one",
        )  # fmt: skip
    return turn


def status(ctx: Context, name: str | None = None) -> dict[str, Any]:
    """Return one turn (unset: the newest) with its journal, as plain data; `sentence` tells it."""
    turn = kept.find(ctx.store, ctx.config.name, name)
    return {**turn.as_dict(), "sentence": sentence(turn), "asks": asks(turn),
            "states": list(STATES), "journal": kept.journal(ctx.store, turn.id)}  # fmt: skip


def history(ctx: Context, limit: int = 50) -> list[dict[str, Any]]:
    """Return the newest turns: when, why, how each ended, and the last line of its journal."""
    found = []
    for turn in kept.turns(ctx.store, ctx.config.name, limit):
        moves = kept.journal(ctx.store, turn.id)
        found.append({**turn.as_dict(), "ended": moves[-1]["reason"] if moves else ""})
    return found


def sentence(turn: Turn) -> str:
    """Return where a turn stands, in one line."""
    if turn.state == "done":
        return f"turn {turn.id}: {turn.facts.get('release', 'the candidate')} answers now"
    if turn.state == "kept":
        return f"turn {turn.id} has ended: the stable release stays"
    if turn.state == "cancelled":
        return f"turn {turn.id} was cancelled"
    if turn.problem:
        return f"turn {turn.id} is stuck in {turn.state}: {turn.problem}"
    if turn.waits:
        return f"turn {turn.id} waits in {turn.state}: {turn.waits}"
    return f"turn {turn.id} is in {turn.state}; `tutelage improve resume` goes on"
