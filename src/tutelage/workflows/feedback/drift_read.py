"""Reads what drift is told from: a deployment's records in order of time, and dataset rows.

It streams: a million records never lie in memory at once. It compares nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import and_, func, select

from tutelage.core.artifact import Artifact
from tutelage.core.errors import DataError, did_you_mean
from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.data.version import load_version
from tutelage.feedback.drift.sample import Row
from tutelage.feedback.drift.watch import Item
from tutelage.feedback.outcome import outcomes
from tutelage.feedback.signals import declare
from tutelage.release.bundle import manifest_of
from tutelage.release.routes import deployments
from tutelage.serving.guards.window import OTHER, label_of, language_of
from tutelage.store.in_time import Place, in_time
from tutelage.store.records import RecordRow
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context, find_artifact, last_output
from tutelage.workflows.living import living

ROW = "row:"  # before the id of a dataset's row, to tell it from a record's
_AT_ONCE = 500  # ids in one question to the store
_LANGUAGE = 400  # characters that a language is told by
_LOCAL = "(no key)"

Keep = Callable[[str, datetime], bool]  # whether the record of an id and time is looked at


def deployment_of(ctx: Context, name: str | None) -> str:
    """Return a deployment's name (unset: the project's); raise DataError if nothing is known."""
    known = {row.name for row in deployments(ctx.store)}
    with ctx.store.session() as session:
        known |= set(session.scalars(select(RecordRow.deployment).distinct()))
    name = name or ctx.config.name
    if name not in known:
        hint = did_you_mean(name, sorted(known))
        there = ", ".join(sorted(known)) or "none: no request was logged and nothing is released"
        raise DataError(f"there is no deployment {name!r}", fix=f"{hint}Known: {there}")
    return name


def answered(deployment: str) -> Any:
    """Return the condition of records that count: answered, and seen by the client."""
    return and_(
        RecordRow.deployment == deployment, RecordRow.status < 400, RecordRow.arm != "shadow"
    )


def count(ctx: Context, deployment: str, since: datetime, until: datetime) -> int:
    """Return how many records there are from `since` to before `until`."""
    with ctx.store.session() as session:
        query = select(func.count()).where(
            answered(deployment), RecordRow.at >= since, RecordRow.at < until
        )
        return session.scalar(query) or 0


def newest_place(ctx: Context, deployment: str, last: int, until: datetime) -> datetime | None:
    """Return the time from which on there are `last` records before `until`; None: none at all."""
    query = (
        select(RecordRow.at)
        .where(answered(deployment), RecordRow.at < until)
        .order_by(RecordRow.at.desc())
    )
    with ctx.store.session() as session:
        found = session.scalars(query.offset(last - 1).limit(1)).first()
        return (
            found or session.scalars(query.order_by(None).order_by(RecordRow.at).limit(1)).first()
        )


def rows(ctx: Context, deployment: str, since: datetime, until: datetime) -> Iterator[Row]:
    """Yield the records from `since` to before `until`, with verdicts and segments."""
    scores = outcomes(ctx.store, declare(ctx.config.feedback), since=since, until=until)
    output = ctx.config.output.format()
    labelled = bool(output.field or output.labels)
    segments = _segments(ctx, output if labelled else None)
    for record in _stream(ctx, deployment, (since, ""), until):
        text = asked(record.messages)
        if text:
            yield Row(
                record.id,
                text,
                record.response,
                label_of(record.response, output) if labelled else None,
                scores.get(record.id),
                segments(record, text),
            )


def items(ctx: Context, deployment: str, after: Place, until: datetime) -> Iterator[Item]:
    """Yield the records after a place as the watch sees them, a part of those of a busy day."""
    keep = _thinned(ctx, deployment, after[0], until)
    output = ctx.config.output.format()
    labelled = bool(output.field or output.labels)
    for record in _stream(ctx, deployment, after, until, keep):
        item = _item(record, output if labelled else None)
        if item.text:
            yield item


def found_items(ctx: Context, ids: set[str], known: Mapping[str, Item]) -> dict[str, Item]:
    """Return the items of these ids: dataset rows from `known`, records from the store."""
    found = {name: known[name] for name in ids if name in known}
    output = ctx.config.output.format()
    labelled = output if output.field or output.labels else None
    wanted = sorted(name for name in ids if not name.startswith(ROW))
    for start in range(0, len(wanted), _AT_ONCE):
        with ctx.store.session() as session:
            query = select(*_COLUMNS).where(RecordRow.id.in_(wanted[start : start + _AT_ONCE]))
            for record in session.execute(query):
                found[record.id] = _item(record, labelled)
    return found


def texts_of(ctx: Context, ids: Sequence[str]) -> dict[str, str]:
    """Return what was asked in these records, those that are still there."""
    with ctx.store.session() as session:
        query = select(RecordRow.id, RecordRow.messages).where(RecordRow.id.in_(list(ids)))
        return {name: asked(messages) for name, messages in session.execute(query)}


def dataset_of(ctx: Context, deployment: str) -> Artifact | None:
    """Return the dataset of the release that serves, or of the last curation; None: neither."""
    release = next((d.stable for d in deployments(ctx.store) if d.name == deployment), None)
    with ctx.store.session() as session:
        row = session.get(ReleaseRow, release) if release else None
    if row is not None and manifest_of(row).dataset is not None:
        found = living(ctx, find_artifact(ctx.store, str(manifest_of(row).dataset)))
        if found is not None:
            return found
    return living(ctx, last_output(ctx, "curate"))


def dataset_rows(ctx: Context, dataset: Artifact, *, golden: bool) -> list[Example]:
    """Return a dataset's own rows (of the test side if `golden`), without those a teacher wrote."""
    version = load_version(ctx.path_of(dataset))
    found = version.rows("test") if golden else version.all_rows()
    return [row for row in found if row.origin.kind != "augmented" and not row.is_text]


def dataset_items(examples: Sequence[Example]) -> list[Item]:
    """Return rows as the watch sees them; what a release would answer is not known of them."""
    return [Item(f"{ROW}{row.id}", row.input_text) for row in examples]


def asked(messages: Any) -> str:
    """Return what the user side of a logged request says, joined; empty where it was not kept."""
    if not isinstance(messages, list):
        return ""
    turns = (turn for turn in messages if isinstance(turn, dict) and turn.get("role") != "system")
    return "\n".join(turn["content"] for turn in turns if isinstance(turn.get("content"), str))


_COLUMNS = (
    RecordRow.id, RecordRow.at, RecordRow.messages, RecordRow.response, RecordRow.user,
    RecordRow.key_name, RecordRow.release,
)  # fmt: skip


def _stream(
    ctx: Context, deployment: str, after: Place, until: datetime, keep: Keep | None = None
) -> Iterator[Any]:
    """Yield the records after a place, oldest first.

    With `keep`, times and ids are read first, and the rest only of those that it wants.
    """
    where = (answered(deployment), RecordRow.at < until)
    if keep is None:
        return in_time(ctx.store, _COLUMNS, where, after)
    places = in_time(ctx.store, (RecordRow.at, RecordRow.id), where, after)
    return _whole(ctx, (place.id for place in places if keep(place.id, place.at)))


def _whole(ctx: Context, ids: Iterator[str]) -> Iterator[Any]:
    """Yield the records of these ids, oldest first; ids are in that order."""
    while part := list(islice(ids, _AT_ONCE)):
        query = select(*_COLUMNS).where(RecordRow.id.in_(part))
        with ctx.store.session() as session:
            rows = session.execute(query.order_by(RecordRow.at, RecordRow.id)).all()
        yield from rows


def _item(record: Any, output: OutputFormat | None) -> Item:
    text = asked(record.messages)
    response = record.response
    return Item(
        record.id,
        text,
        record.at.isoformat(),
        len(response) if response and output is None else None,
        label_of(response, output) if response and output is not None else None,
        record.user,
        record.release,
    )


def _segments(ctx: Context, output: OutputFormat | None) -> Callable[[Any, str], dict[str, str]]:
    """Return what tells the segments of a record."""
    wanted = ctx.config.drift.segments
    with ctx.store.session() as session:
        releases = {row.id: row.name for row in session.scalars(select(ReleaseRow))}

    def of(record: Any, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        if "key" in wanted:
            found["key"] = record.key_name or _LOCAL
        if "label" in wanted and output is not None:
            found["label"] = label_of(record.response, output)
        if "release" in wanted:
            found["release"] = releases.get(record.release, record.release[:12])
        if "language" in wanted:
            found["language"] = language_of(text[:_LANGUAGE]) or OTHER
        return found

    return of


def _thinned(ctx: Context, deployment: str, since: datetime, until: datetime) -> Keep:
    """Return whether a record is looked at: of a day with more than `a_day`, a random part.

    What is kept depends on the id and on the day's traffic, never on what a request says. Of a day
    that is not over the traffic of the day before is taken, where that was more.
    """
    day = func.date(RecordRow.at)
    with ctx.store.session() as session:
        query = (
            select(day, func.count())
            .where(answered(deployment), RecordRow.at >= since - timedelta(days=1))
            .where(RecordRow.at < until)
            .group_by(day)
        )
        counts = {str(name): int(number) for name, number in session.execute(query)}
    most, salt = ctx.config.drift.a_day, ctx.config.drift.seed

    def keep(name: str, at: datetime) -> bool:
        there: int = counts.get(f"{at:%Y-%m-%d}", 0)
        if at.date() == until.date():
            there = max(there, counts.get(f"{at - timedelta(days=1):%Y-%m-%d}", 0))
        if there <= most:
            return True
        digest = hashlib.blake2b(f"{salt} {name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") / 2**64 < most / there

    return keep
