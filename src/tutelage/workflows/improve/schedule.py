"""The schedule of the loop: begins a turn when one is due, and goes on with one that waited.

It looks while `tutelage up` serves, or under `tutelage schedule run`. The work itself is done by a
child process, so that a gateway never trains; the turn's lock keeps it to one at a time.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from tutelage.core.artifact import utc_now
from tutelage.core.durations import seconds
from tutelage.core.errors import Conflict, TutelageError
from tutelage.core.events import Event, EventKind
from tutelage.feedback.cron import next_time
from tutelage.feedback.schedule import Due, Seen, due, local, quiet_until, retry_at
from tutelage.release.rollout import TERMINAL
from tutelage.serving.hooks import BackgroundHook, Hook
from tutelage.serving.monitoring.events import EventLog, Happening
from tutelage.store.annotations import AnnotationRow
from tutelage.store.artifacts import ArtifactRow
from tutelage.store.drift import DriftReportRow, DriftWatchRow
from tutelage.store.improve import ScheduleRow, TurnEventRow, TurnRow
from tutelage.store.records import SignalRow
from tutelage.store.releases import RolloutRow
from tutelage.workflows.context import Context, open_context, reread
from tutelage.workflows.improve import improve_turns as kept
from tutelage.workflows.improve.improve import QUIET, Parts, improve, sentence
from tutelage.workflows.improve.improve_turns import Turn
from tutelage.workflows.quiet_child import run_quietly

LOOK_S = 60.0  # between two looks
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """One look: whether there is something to do now, why or why not, and the turn it is about."""

    act: bool
    reason: str
    turn: Turn | None = None
    next_at: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "act": self.act,
            "reason": self.reason,
            "turn": self.turn.id if self.turn else None,
            "next_at": self.next_at.isoformat(timespec="seconds") if self.next_at else None,
        }


def look(ctx: Context, now: datetime | None = None) -> Look:
    """Return whether a turn shall begin or go on now. Nothing is changed, nothing heavy is done."""
    at = now or utc_now()
    settings = ctx.config.improve
    turn = kept.current(ctx.store, ctx.config.name)
    if turn is not None:
        if not settings.starts_by_itself:
            return Look(False, f"nothing goes on by itself: {sentence(turn)}", turn)
        return _go_on(ctx, turn, at)
    found: Due = due(settings, seen(ctx), at)
    again = _begins_again(ctx) if found.now else None
    if again is not None and at < again[1]:
        return Look(False, f"{again[0]}; it is tried again at {local(again[1])}", None, again[1])
    return Look(found.now, found.reason, None, found.next_at)


def _begins_again(ctx: Context) -> tuple[str, datetime] | None:
    """Return why no turn could begin when one was due last, and when to try again; else None."""
    query = select(ScheduleRow).where(ScheduleRow.project == ctx.config.name)
    with ctx.store.session() as session:
        row = session.scalars(query.order_by(ScheduleRow.at.desc()).limit(1)).first()
    return (row.reason, retry_at(row.at, 1)) if row is not None and row.turn is None else None


def seen(ctx: Context) -> Seen:
    """Return what the schedule decides on."""
    past = kept.turns(ctx.store, ctx.config.name, 1)
    last = past[0].started_at if past else None
    with ctx.store.session() as session:
        began = session.scalar(
            select(func.min(ArtifactRow.created_at)).where(ArtifactRow.kind == "dataset")
        )
        since = last or began or datetime.min.replace(tzinfo=UTC)
        taken = session.scalar(  # when a turn last took up what was there, or was given up
            select(func.max(TurnEventRow.at))
            .join(TurnRow, TurnRow.id == TurnEventRow.turn)
            .where(
                TurnRow.project == ctx.config.name,
                or_(
                    TurnEventRow.from_state == "dataset",
                    TurnEventRow.from_state.in_(("mine", "review"))
                    & TurnEventRow.to_state.in_(kept.ENDED),
                ),
            )
        )
        learned = taken or began or since
        answered = session.scalar(
            select(func.count(func.distinct(AnnotationRow.item))).where(
                AnnotationRow.at > learned, AnnotationRow.undone_at.is_(None)
            )
        )
        drift = session.scalar(
            select(DriftReportRow.sentence)
            .join(DriftWatchRow, DriftWatchRow.alarm == DriftReportRow.id)  # that stands
            .where(DriftWatchRow.deployment == ctx.config.name, DriftReportRow.at > since)
        )
        edits = session.scalar(
            select(func.count(func.distinct(SignalRow.record))).where(
                SignalRow.kind == "edit", SignalRow.at > learned
            )
        )
    return Seen(began, last, int(answered or 0) + int(edits or 0), drift)


def _go_on(ctx: Context, turn: Turn, at: datetime) -> Look:
    """Return whether a turn that is under way can go on."""
    told = sentence(turn)
    if turn.problem:
        again = retry_at(_last_event(ctx, turn), turn.tries)
        return Look(at >= again, f"{told}; it is tried again at {local(again)}", turn, again)
    if turn.waits is None:
        return Look(True, told, turn)
    if turn.waits.startswith(QUIET):
        return Look(quiet_until(ctx.config.improve.quiet, at) is None, told, turn)
    if turn.state == "review":
        wait = timedelta(seconds=seconds(ctx.config.improve.review.wait))
        return Look(_all_answered(ctx, turn) or at - turn.since >= wait, told, turn)
    if turn.state == "canary":
        return Look(_rollout_ended(ctx, turn), told, turn)
    return Look(False, told, turn)


def _last_event(ctx: Context, turn: Turn) -> datetime:
    with ctx.store.session() as session:
        query = select(func.max(TurnEventRow.at)).where(TurnEventRow.turn == turn.id)
        return session.scalar(query) or turn.since


def _all_answered(ctx: Context, turn: Turn) -> bool:
    from tutelage.workflows.improve.improve_steps import answers

    counts = answers(ctx, str(turn.facts.get("batch")))
    return not counts["open"] + counts["leased"]


def _rollout_ended(ctx: Context, turn: Turn) -> bool:
    with ctx.store.session() as session:
        own = session.get(RolloutRow, str(turn.facts.get("rollout")))
        if own is not None:
            return own.state in TERMINAL
        busy = select(func.count()).where(
            RolloutRow.deployment == ctx.config.name, RolloutRow.state.not_in(TERMINAL)
        )
        return not session.scalar(busy)


def act(ctx: Context, now: Callable[[], datetime] = utc_now, *, parts: Parts | None = None) -> Look:
    """Look once, and do what is to be done; return the look, with the turn as it is then.

    Raises what a turn's work raises; another process at work on the turn is no error.
    """
    found = look(ctx, now())
    if not found.act:
        return found
    last = _newest(ctx)
    try:
        turn = improve(ctx, why=found.reason, parts=parts, patient=True, now=now)
    except Conflict as error:
        return Look(False, error.sentence(), found.turn)
    except TutelageError as error:
        if found.turn is None and _newest(ctx) == last:
            _keep(ctx, f"no turn could begin: {error.sentence()}", None, now())
        raise
    finally:
        begun = _newest(ctx)
        if found.turn is None and begun != last:
            _keep(ctx, found.reason, begun, now())
    return Look(True, found.reason, turn)


def watch(ctx: Context, sleep: Callable[[float], object] = time.sleep) -> NoReturn:
    """Look once a minute for good, with the settings as they are then; tell what goes wrong."""
    said = ""
    while True:
        kind: EventKind = "note"
        try:
            found = act(reread(ctx))
            told = sentence(found.turn) if found.turn else found.reason
        except Exception as error:  # the turn keeps it; the next look may fare better
            kind, told = "warning", str(error)
        if told != said:
            ctx.emit(Event("schedule", kind, told))
        said = told
        sleep(LOOK_S)


def _newest(ctx: Context) -> str | None:
    return next((turn.id for turn in kept.turns(ctx.store, ctx.config.name, 1)), None)


def _keep(ctx: Context, reason: str, turn: str | None, at: datetime) -> None:
    """Keep the decision to begin a turn; None: it could not."""
    with ctx.store.begin() as session:
        session.add(ScheduleRow(project=ctx.config.name, due=True, reason=reason, turn=turn, at=at))


def show(ctx: Context, now: datetime | None = None) -> dict[str, Any]:
    """Return what starts a turn, what stands now, and the turns that the schedule began."""
    found = look(ctx, now)
    with ctx.store.session() as session:
        query = select(ScheduleRow).where(ScheduleRow.project == ctx.config.name)
        query = query.where(ScheduleRow.turn.is_not(None))
        rows = list(session.scalars(query.order_by(ScheduleRow.at.desc()).limit(20)))
    settings = ctx.config.improve
    return {
        **found.as_dict(),
        "settings": settings.model_dump(mode="json"),
        "starts_by_itself": settings.starts_by_itself,
        "begun": [
            {"at": row.at.isoformat(timespec="seconds"), "reason": row.reason, "turn": row.turn}
            for row in rows
        ],
    }


class Schedule(BackgroundHook):
    """Looks now and then while the gateway runs, and lets a child process do what is to be done."""

    def __init__(self, ctx: Context, events: EventLog, *, every_s: float = LOOK_S) -> None:
        self._ctx, self._events, self._every_s = ctx, events, every_s

    async def _run(self) -> None:
        while True:
            try:
                found = await asyncio.to_thread(look, self._ctx)
                if found.act:
                    await self._child(found)
            except (TutelageError, SQLAlchemyError, OSError) as error:
                _log.warning("the schedule of the loop will look again: %s", error)
            await asyncio.sleep(self._every_s)

    async def _child(self, found: Look) -> None:
        self._events.tell(Happening("improve.turn", found.reason, subject=self._ctx.config.name))
        log = self._ctx.workspace.logs / "improve.log"
        command = ("-m", __name__, str(self._ctx.workspace.root))
        status = await run_quietly(command, log, patient=True)
        if status:
            text = f"a turn of the loop went wrong (status {status}), see {log}"
            self._events.tell(
                Happening("improve.failed", text, "error", subject=self._ctx.config.name)
            )


def schedule_hooks(ctx: Context, events: EventLog) -> list[Hook]:
    """Return the schedule's hook if anything starts a turn by itself.

    Raises ConfigError for a cron line that means nothing: every look would fail, unseen.
    """
    if ctx.config.improve.cron is not None:
        next_time(ctx.config.improve.cron, utc_now())
    return [Schedule(ctx, events)] if ctx.config.improve.starts_by_itself else []


def main(arguments: list[str]) -> int:
    """Do one look's work in the project that is named; return the exit status."""
    ctx = open_context(Path(arguments[0]))
    try:
        found = act(ctx)
        sys.stdout.write(f"{utc_now():%Y-%m-%d %H:%M:%S} {found.reason}\n")
        if found.turn is not None:
            sys.stdout.write(f"{sentence(found.turn)}\n")
    except TutelageError as error:
        sys.stdout.write(f"{utc_now():%Y-%m-%d %H:%M:%S} {error.sentence()}\n")
        return error.exit_code
    finally:
        ctx.store.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
