"""Takes the watch over drift as far as the log reaches, and tells once when traffic has moved.

One look reads what came since the last one. Its state is written after every part of it under a
fence, so that a killed look loses nothing and of two at once one gives way. An alarm stands until
traffic is accepted as normal (`accept` of drift.py); meanwhile the watch goes on with what came
after it, so that traffic which moves once more is told too.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.events import Event
from tutelage.feedback.drift.check import CheckSettings, check
from tutelage.feedback.drift.report import DriftReport, Part, Shown, Side
from tutelage.feedback.drift.sample import Row, Sample
from tutelage.feedback.drift.watch import POOL, Alarm, DriftWatch, Item
from tutelage.feedback.outcome import outcomes
from tutelage.feedback.signals import declare
from tutelage.release.routes import deployments
from tutelage.serving.monitoring.events import Happening, add_event
from tutelage.store.drift import DriftReportRow, DriftWatchRow
from tutelage.store.in_time import Place
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context
from tutelage.workflows.feedback import drift_read as read
from tutelage.workflows.feedback.drift_kept import accepted, report_row, report_view
from tutelage.workflows.feedback.drift_space import embedding

SETTLE = timedelta(minutes=1)  # a record may be written this long after it was made
VERDICTS = timedelta(days=1)  # how long users have to say something
_PART = 2_000  # requests between two writes of the state
_BEFORE = 10_000  # requests before an alarm that it is explained with
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_SUBJECT = "traffic"
_SIDES: dict[str, Side] = {
    "request wording": "requests", "request length": "requests", "answer length": "answers",
    "label": "answers", "score": "scores",
}  # fmt: skip


@dataclass
class _Reading:
    """A watch under way, and how far it has read."""

    deployment: str
    reference: str
    told: str
    watch: DriftWatch
    cursor: Place
    verdicts: datetime  # those of records before it were taken
    began: str
    known: dict[str, Item]
    looked_at: int = 0
    fence: int | None = None  # of the row it was read from; None: there was none

    def state(self) -> dict[str, Any]:
        """Return what is kept."""
        return {
            "read_to": self.cursor[0].isoformat(),
            "read_id": self.cursor[1],
            "verdicts": self.verdicts.isoformat(),
            "began": self.began,
            "told": self.told,
            "looked_at": self.looked_at,
            "evidence": [one.as_dict() for one in self.watch.evidence()],
            "watch": self.watch.state(),
        }


class Overtaken(Exception):
    """Somebody else has looked meanwhile: what this look found is theirs to tell."""


def look(
    ctx: Context, *, deployment: str | None = None, now: datetime | None = None
) -> list[dict[str, Any]]:
    """Read what was logged since the last look; return where each deployment's watch stands.

    Unset, every deployment is looked at. A new alarm is kept as a report and told as an event.
    """
    now = now or utc_now()
    names = [read.deployment_of(ctx, deployment)] if deployment is not None else _known(ctx)
    for name in names:
        try:
            _look(ctx, name, now)
        except Overtaken:
            ctx.emit(Event("drift", "note", f"{name} is being looked at by somebody else"))
    return [standing(ctx, name) for name in names]


def standings(ctx: Context) -> list[dict[str, Any]]:
    """Return where the watch of every deployment stands; reads no records."""
    return [standing(ctx, name) for name in _known(ctx)]


def standing(ctx: Context, deployment: str | None = None) -> dict[str, Any]:
    """Return where a deployment's watch stands, and its alarm if one stands; reads no records."""
    name = read.deployment_of(ctx, deployment)
    with ctx.store.session() as session:
        row = session.get(DriftWatchRow, name)
        alarm = session.get(DriftReportRow, row.alarm) if row is not None and row.alarm else None
    state = row.state if row is not None else {}
    return {
        "deployment": name,
        "moved": alarm is not None,
        "alarm": report_view(alarm) if alarm is not None else None,
        "reference": state.get("told"),
        "since": state.get("began"),
        "read_to": state.get("read_to") if state.get("looked_at") else None,
        "looked_at": state.get("looked_at", 0),
        "false_alarms": ctx.config.drift.false_alarms,
        "series": state.get("evidence", []),
    }


def alarm_since(ctx: Context, deployment: str) -> datetime | None:
    """Return when what the standing alarm tells of began; None without one."""
    with ctx.store.session() as session:
        row = session.get(DriftWatchRow, deployment)
        alarm = session.get(DriftReportRow, row.alarm) if row is not None and row.alarm else None
    since = alarm.report["watch"].get("since") if alarm is not None else None
    return datetime.fromisoformat(since) if since else None


def begin_anew(session: Session, deployment: str, why: str, at: datetime) -> None:
    """Forget a watch's evidence inside a transaction; an alarm that stood has ended."""
    row = session.get(DriftWatchRow, deployment)
    if row is None:
        return
    if row.alarm is not None:
        message = f"{deployment}: {why}"
        add_event(session, Happening("drift.ended", message, deployment=deployment,
                                     subject=_SUBJECT, at=at))  # fmt: skip
    session.delete(row)


def _known(ctx: Context) -> list[str]:
    with ctx.store.session() as session:
        logged = set(session.scalars(select(RecordRow.deployment).distinct()))
    return sorted(logged | {row.name for row in deployments(ctx.store)})


def _look(ctx: Context, deployment: str, now: datetime) -> None:
    reading = _open(ctx, deployment, now)
    until = now - SETTLE
    pending = 0
    for item in read.items(ctx, deployment, reading.cursor, until):
        alarm = reading.watch.add(item)
        reading.cursor = (datetime.fromisoformat(item.at), item.id)
        reading.looked_at += 1
        pending += 1
        if alarm is not None or pending >= _PART:
            _write(ctx, reading, alarm, now)
            ctx.emit(Event("drift", "progress", f"{reading.looked_at:,} requests looked at"))
            pending = 0
    _write(ctx, reading, _take_verdicts(ctx, reading, now - VERDICTS), now)


def _open(ctx: Context, deployment: str, now: datetime) -> _Reading:
    """Return the watch where it was left, or a new one."""
    with ctx.store.session() as session:
        row = session.get(DriftWatchRow, deployment)
    reading = _fresh(ctx, deployment, now, row.reference if row is not None else None)
    if row is None:
        return reading
    state = row.state
    reading.fence = row.fence
    reading.told, reading.began = state["told"], state["began"]
    reading.looked_at = int(state["looked_at"])
    reading.cursor = (datetime.fromisoformat(state["read_to"]), state.get("read_id", ""))
    reading.verdicts = datetime.fromisoformat(state["verdicts"])
    reading.watch.restore(state["watch"], lambda ids: read.found_items(ctx, ids, reading.known))
    return reading


def _fresh(ctx: Context, deployment: str, now: datetime, reference: str | None) -> _Reading:
    """Return a watch that has read nothing. A known `reference` is only looked up again."""
    drift = ctx.config.drift
    row = accepted(ctx, deployment)
    items: list[Item] = []
    known: dict[str, Item] = {}
    start = row.until if row is not None else _FIRST  # what was accepted alarms nobody again
    name, told = "none", "the first requests"
    if row is not None and drift.against == "auto":
        name = f"accepted:{row.id}"
        told = f"the traffic accepted on {row.at:%Y-%m-%d}"
        if reference is None:
            items = _drawn(read.items(ctx, deployment, (row.since, ""), row.until), drift.seed)
    else:
        dataset = read.dataset_of(ctx, deployment)
        if dataset is not None:
            examples = read.dataset_rows(ctx, dataset, golden=drift.against == "golden")
            items = read.dataset_items(examples)
            known = {item.id: item for item in items}
            name, told = f"dataset:{dataset.hash[:12]}", f"the rows of dataset {dataset.short}"
    return _Reading(deployment, reference or name, told, _watch(ctx, items), (start, ""), start,
                    now.isoformat(), known)  # fmt: skip


def _watch(ctx: Context, reference: Iterable[Item] = ()) -> DriftWatch:
    """Return a watch as the project wants it."""
    drift = ctx.config.drift
    return DriftWatch(
        embedding(ctx, POOL), alpha=drift.false_alarms, seed=drift.seed, reference=reference
    )


def _drawn(items: Iterable[Item], seed: int) -> list[Item]:
    """Return POOL of the items at random, in order of time, by a hash of their ids."""

    def draw(item: Item) -> bytes:
        return hashlib.blake2b(f"{seed} pool {item.id}".encode(), digest_size=8).digest()

    return sorted(heapq.nsmallest(POOL, items, key=draw), key=lambda item: (item.at, item.id))


def _take_verdicts(ctx: Context, reading: _Reading, until: datetime) -> Alarm | None:
    """Give the watch users' verdicts on records that they have had time for, in order of time."""
    until = min(until, reading.cursor[0])
    if until <= reading.verdicts:
        return None
    scores = outcomes(ctx.store, declare(ctx.config.feedback), since=reading.verdicts, until=until)
    ordered: list[tuple[str, str]] = []
    names = sorted(scores)
    for start in range(0, len(names), 500):
        with ctx.store.session() as session:
            query = select(RecordRow.at, RecordRow.id).where(
                read.answered(reading.deployment), RecordRow.id.in_(names[start : start + 500])
            )
            ordered += [(at.isoformat(), name) for at, name in session.execute(query)]
    reading.verdicts = until
    for at, name in sorted(ordered):
        alarm = reading.watch.add_score(scores[name], name, at)
        if alarm is not None:
            return alarm
    return None


def _write(ctx: Context, reading: _Reading, alarm: Alarm | None, now: datetime) -> None:
    """Keep how far the watch has come, with its alarm, in one transaction.

    After an alarm the watch begins anew with what comes. Raises Overtaken if the row is no longer
    the one that was read.
    """
    report = _explained(ctx, reading, alarm) if alarm is not None else None
    if alarm is not None:
        reading.watch, reading.began = _watch(ctx), now.isoformat()
        reading.told = f"the requests since the alarm of {reading.cursor[0]:%Y-%m-%d %H:%M} UTC"
    with ctx.store.begin() as session:
        row = session.get(DriftWatchRow, reading.deployment)
        if (row.fence if row is not None else None) != reading.fence:
            raise Overtaken
        if row is None:
            row = DriftWatchRow(deployment=reading.deployment, reference=reading.reference,
                                fence=0, state={})  # fmt: skip
            session.add(row)
        row.state, row.fence, row.updated_at = reading.state(), row.fence + 1, now
        reading.fence = row.fence
        if alarm is not None and report is not None:
            kept = report_row(reading.deployment, report, "alarm", now)
            session.add(kept)
            row.alarm = kept.id
            message = (
                f"{reading.deployment}: traffic has moved since {alarm.since[:16]} "
                f"({alarm.series}); `tutelage drift show` says how"
            )
            data = {"report": kept.id, "series": alarm.series, "since": alarm.since, "p": alarm.p}
            add_event(session, Happening("drift.found", message, "warning", reading.deployment,
                                         _SUBJECT, data, at=now))  # fmt: skip


def _explained(ctx: Context, reading: _Reading, alarm: Alarm) -> DriftReport:
    """Return what moved, told by a comparison of the requests since then with those before."""
    since = datetime.fromisoformat(alarm.since)
    until = reading.cursor[0] + timedelta(microseconds=1)
    drift = ctx.config.drift
    recent = Sample.of(read.rows(ctx, reading.deployment, since, until), texts=drift.texts)
    begun = read.newest_place(ctx, reading.deployment, _BEFORE, since) or since
    before = Sample.of(read.rows(ctx, reading.deployment, begun, since), texts=drift.texts)
    told, word = "the requests before", "before"
    if len(before) < 50:
        items = reading.watch.before(alarm.since)
        rows = (Row(i.id, i.text, None, i.label) for i in items)
        before, told, word = Sample.of(rows), reading.told, "in the reference"
    settings = CheckSettings(drift.level, drift.notable, drift.seed, against=word)
    found = check(before, recent, settings=settings)
    sentence = f"The {alarm.series} has moved since {since:%Y-%m-%d %H:%M} UTC"
    if found.moved:
        told_so = found.sentence[:1].lower() + found.sentence[1:]
        sentence = f"Since {since:%Y-%m-%d %H:%M} UTC {told_so}"
    examples = tuple(Shown(name, "recent") for name in alarm.ids[:6])
    part = Part(alarm.series, _SIDES[alarm.series], "watch", alarm.p, alarm.p, alarm.p, True,
                len(before), len(recent), examples=examples,
                sentence=f"the {alarm.series} is not what it was")  # fmt: skip
    watch = {"since": alarm.since, "series": alarm.series, "p": alarm.p,
             "evidence": [one.as_dict() for one in reading.watch.evidence()]}  # fmt: skip
    return replace(
        found, moved=True, verdict="moved", sentence=sentence, parts=(part, *found.parts),
        reference=told, recent=f"the {len(recent):,} requests since {since:%Y-%m-%d %H:%M} UTC",
        watch=watch,
    )  # fmt: skip
