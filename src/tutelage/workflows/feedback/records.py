"""Production records for people: the newest with filters, one with its feedback, to the experts.

Reads page by page, newest first. What an index can't answer is looked for in a window of the
newest records, and the answer says how far the window goes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Select, String, and_, cast, func, or_, select

from tutelage.core.errors import DataError, did_you_mean
from tutelage.feedback.mining.scan import asked_text
from tutelage.release import bundle
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_items import Order, give, production_item
from tutelage.workflows.data.experts_people import annotators
from tutelage.workflows.data.experts_rows import known_rows
from tutelage.workflows.data.pool import given_items
from tutelage.workflows.feedback import feedback

Kind = Literal["all", "failed", "flagged", "feedback", "corrected", "canary"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WINDOW = 20_000  # records that a filter without an index looks through at once
_CUT = 400  # characters of a text in a list


@dataclass(frozen=True)
class Wanted:
    """Which records: of a deployment, of a release (name or id), of a kind (KINDS)."""

    deployment: str | None = None
    release: str | None = None
    kind: str = "all"


def recent_records(
    ctx: Context, wanted: Wanted | None = None, *, before: str | None = None, limit: int = 25
) -> dict[str, Any]:
    """Return {records, next, looked_at}: newest first, those older than the place `before`.

    `next` is the place to go on from, None at the end. Raises DataError for an unknown kind,
    release or place.
    """
    wanted = wanted or Wanted()
    if wanted.kind not in KINDS:
        hint = did_you_mean(wanted.kind, KINDS)
        raise DataError(f"there is no kind {wanted.kind!r}", fix=f"{hint}Known: {', '.join(KINDS)}")
    columns: Any = select(RecordRow.id, RecordRow.at)
    query = _narrowed(ctx, columns, wanted, before)
    size = limit if wanted.kind == "all" else WINDOW
    with ctx.store.session() as session:
        window = session.execute(query.limit(size + 1)).all()
        more, window = len(window) > size, window[:size]
        chosen = window
        if wanted.kind != "all" and window:
            oldest = window[-1]
            inside = _narrowed(ctx, columns, wanted, before)
            inside = inside.where(_not_older(oldest.at, oldest.id), _is(ctx, wanted.kind))
            chosen = session.execute(inside.limit(limit + 1)).all()
            if len(chosen) > limit:
                more, chosen, window = True, chosen[:limit], chosen[:limit]
        rows = _loaded(ctx, [row.id for row in chosen])
    return {
        "records": rows,
        "next": _place(window[-1].at, window[-1].id) if more and window else None,
        "looked_at": len(window),
    }


def _narrowed(ctx: Context, query: Select[Any], wanted: Wanted, before: str | None) -> Select[Any]:
    if wanted.deployment:
        query = query.where(RecordRow.deployment == wanted.deployment)
    if wanted.release:
        query = query.where(RecordRow.release == bundle.get_release(ctx.store, wanted.release).id)
    if before:
        at, name = _read_place(before)
        query = query.where(or_(RecordRow.at < at, and_(RecordRow.at == at, RecordRow.id < name)))
    return query.order_by(RecordRow.at.desc(), RecordRow.id.desc())


def _not_older(at: datetime, name: str) -> Any:
    return or_(RecordRow.at > at, and_(RecordRow.at == at, RecordRow.id >= name))


def _is(ctx: Context, kind: str) -> Any:
    """Return the condition of a kind."""
    told = select(SignalRow.record).where(SignalRow.record == RecordRow.id)
    if kind == "failed":
        return RecordRow.status >= 400
    if kind == "canary":
        return RecordRow.arm == "canary"
    if kind == "feedback":
        return told.exists()
    if kind == "corrected":
        return told.where(SignalRow.kind == "edit").exists()
    return cast(RecordRow.checks, String).like('%"ok": false%')


def _place(at: datetime, name: str) -> str:
    return f"{at.isoformat()}|{name}"


def _read_place(text: str) -> tuple[datetime, str]:
    at, _, name = text.partition("|")
    try:
        return datetime.fromisoformat(at), name
    except ValueError:
        raise DataError(f"{text!r} is no place in the log", fix="Begin from the newest") from None


def _loaded(ctx: Context, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the records of these ids in their order, with counts of what was said of them."""
    said: dict[str, Counter[str]] = defaultdict(Counter)
    with ctx.store.session() as session:
        found = {r.id: r for r in session.scalars(select(RecordRow).where(RecordRow.id.in_(ids)))}
        names = _release_names(session, {row.release for row in found.values()})
        counted = select(SignalRow.record, SignalRow.kind, func.count()).where(
            SignalRow.record.in_(ids)
        )
        for record, kind, count in session.execute(
            counted.group_by(SignalRow.record, SignalRow.kind)
        ):
            said[record][kind] += count
    return [_view(found[name], names, said[name]) for name in ids if name in found]


def _release_names(session: Any, ids: set[str]) -> dict[str, str]:
    query = select(ReleaseRow.id, ReleaseRow.name).where(ReleaseRow.id.in_(ids))
    return dict(session.execute(query).tuples().all())


def _view(
    row: RecordRow, names: dict[str, str], said: Counter[str], cut: int | None = _CUT
) -> dict[str, Any]:
    return {
        "id": row.id,
        "at": row.at.isoformat(timespec="seconds"),
        "deployment": row.deployment,
        "release": names.get(row.release, row.release[:12]),
        "arm": row.arm,
        "rollout": row.rollout,
        "key": row.key_name,
        "side": row.split,
        "status": row.status,
        "error": row.error,
        "latency_ms": row.latency_ms,
        "first_token_ms": row.first_token_ms,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "question": (asked_text(row.messages) or "")[:cut],
        "answer": row.response[:cut],
        "flags": {
            name: c.get("why", "") for name, c in row.checks.items() if not c.get("ok", True)
        },
        "said": dict(said),
    }


def record(ctx: Context, name: str) -> dict[str, Any]:
    """Return one record whole, with its messages, signals and score; raise DataError if unknown."""
    told = feedback.show(ctx, name)
    with ctx.store.session() as session:
        row = session.get(RecordRow, name)
        names = _release_names(session, {row.release} if row is not None else set())
    said = Counter(str(one["signal"]) for one in told["signals"])
    facts = _view(row, names, said, None) if row is not None else {"id": name}
    return {**facts, **{key: told[key] for key in ("messages", "response", "score", "signals")}}


def send_to_label(ctx: Context, names: Sequence[str], people: Sequence[str]) -> dict[str, Any]:
    """Give the questions of these records to people, as one batch for whoever of them is free.

    Without people, all who label. Raises DataError if nobody does, a record asks nothing, or its
    question was given out or answered before.
    """
    who = tuple(people) or tuple(one["name"] for one in annotators(ctx) if one["active"])
    if not who:
        raise DataError(
            "nobody labels yet", fix="Add people: `tutelage data label people --add NAME`"
        )
    with ctx.store.session() as session:
        rows = list(session.scalars(select(RecordRow).where(RecordRow.id.in_(names))))
    made = [production_item(ctx, row) for row in rows]
    items = known_rows(ctx, [item for item in made if item is not None])
    before = given_items(ctx)
    fresh = [item for item in items if item.example_id is None and item.id not in before]
    batch = give(ctx, fresh, Order(people=who, source="production", shared=True)) if fresh else None
    if batch is None:
        raise DataError(
            "there is nothing new to label in it",
            where=", ".join(names),
            fix="Its question is in the dataset, was given out before, or it has none",
        )
    return batch
