"""Signals that nobody sends: read from the order of a user's requests, with the author `traffic`.

`time_to_next` is the time from the end of an answer to the user's next request, `retried` says
that the next one asked the same (data/dedup/near.py) within a time, `abandoned` that the answer
never came whole and the user fell silent. Only requests that name a user are looked at; of those
whose texts were not kept nobody knows whether they repeat. Reading the same records again gives
the same signals: what no longer holds, because a record came late, is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select

from tutelage.core.artifact import content_hash, utc_now
from tutelage.core.config_feedback import Feedback
from tutelage.core.durations import seconds
from tutelage.core.example import normalise
from tutelage.store.base import Store, insert_into
from tutelage.store.feedback import MarkRow
from tutelage.store.in_time import in_time
from tutelage.store.records import RecordRow, SignalRow

TRAFFIC = "traffic"  # the author of these signals
NEXT, RETRIED, ABANDONED = "time_to_next", "retried", "abandoned"
_MARK = "traffic"
_FAILED = 400  # and above: no whole answer
_LEFT = 499  # the client closed the connection
_AT_ONCE = 500  # records whose signals one transaction holds
_LATE = timedelta(minutes=5)  # a record may reach the store this long after it was made


class Asked(NamedTuple):
    """One request: when its answer ended and how; `text` is what the user said last."""

    record: str
    user: tuple[str, str | None, str]  # deployment, key, user
    at: datetime
    latency_s: float
    status: int
    text: str


class Read(NamedTuple):
    """What the order of requests says of one record: signal, value and time of each.

    `again` are the two texts of a record that is `retried` as well if they are alike, and when.
    """

    record: str
    signals: tuple[tuple[str, Any, datetime], ...]
    again: tuple[str, str, datetime] | None = None


@dataclass(frozen=True)
class Look:
    """What one look did: records looked at, signals written, signals taken back."""

    records: int
    written: int
    removed: int


class Reader:
    """Reads signals from requests in the order of their ends."""

    def __init__(self, settings: Feedback) -> None:
        self._retry = timedelta(seconds=seconds(settings.retry_within))
        self.session = timedelta(seconds=seconds(settings.session))

    def read(
        self, requests: Iterable[Asked], now: datetime, earlier: Iterable[Asked] = ()
    ) -> Iterator[Read]:
        """Yield what is known of each request once its user asked again or was silent long enough.

        Requests of users who may still come back before `now` have passed are not yielded.
        `earlier` are the last requests of users before these; one that was answered whole and
        followed by none has nothing to say and is not yielded either.
        """
        last = {request.user: request for request in earlier}
        nothing = {request.record for request in last.values() if request.status < _FAILED}
        for request in requests:
            before = last.get(request.user)
            last[request.user] = request
            if before is not None:
                yield self._between(before, request)
        for request in last.values():
            if now - request.at > self.session and request.record not in nothing:
                yield self._silent(request)

    def _between(self, one: Asked, two: Asked) -> Read:
        gap = max(two.at - timedelta(seconds=two.latency_s) - one.at, timedelta(0))
        if gap > self.session:
            return self._silent(one)
        found = ((NEXT, round(gap.total_seconds(), 3), two.at),)
        asked = gap <= self._retry and one.text and two.text
        return Read(one.record, found, (one.text, two.text, two.at) if asked else None)

    def _silent(self, one: Asked) -> Read:
        whole = one.status < _FAILED
        signals = () if whole else ((ABANDONED, True, one.at + self.session),)
        return Read(one.record, signals)


def with_repeats(part: Sequence[Read], alike: float) -> list[Read]:
    """Return the reads with `retried` where the next question was the same.

    `alike` is the share of letters that agree, in percent.
    """
    from tutelage.data.dedup.near import NearDuplicates

    asked = [one for one in part if one.again]
    texts = [(one.again[0], one.again[1]) for one in asked if one.again]
    same = NearDuplicates(alike).same([a for a, _ in texts], [b for _, b in texts])
    repeated = {
        one.record
        for one, (first, then), near in zip(asked, texts, same, strict=True)
        if near or normalise(first) == normalise(then)
    }
    return [
        one._replace(signals=(*one.signals, (RETRIED, True, one.again[2])))
        if one.again and one.record in repeated
        else one
        for one in part
    ]


def read_traffic(
    store: Store, settings: Feedback, *, now: datetime | None = None, everything: bool = False
) -> Look:
    """Read the signals of the records since the last look, or of all with `everything`.

    Interrupted, it has done a part; the next look does the rest.
    """
    now = now or utc_now()
    with store.session() as session:
        mark = session.get(MarkRow, _MARK)
    reader = Reader(settings)
    since, earlier = None, list[Asked]()
    if mark is not None and not everything:
        since = mark.at - _LATE
        earlier = _last_requests(store, since - reader.session, since)
    looked = written = removed = 0
    found = reader.read(_requests(store, since), now, earlier)
    while part := list(islice(found, _AT_ONCE)):
        new, old = _keep(store, with_repeats(part, settings.alike))
        looked, written, removed = looked + len(part), written + new, removed + old
    with store.begin(lazy=True) as session:  # it is not on the disk before the signals are
        session.merge(MarkRow(name=_MARK, at=now))
    return Look(looked, written, removed)


_COLUMNS = (
    RecordRow.id, RecordRow.deployment, RecordRow.key_name, RecordRow.user, RecordRow.at,
    RecordRow.latency_ms, RecordRow.status, RecordRow.messages,
)  # fmt: skip
_LOOKED_AT = (
    RecordRow.user.is_not(None), RecordRow.arm != "shadow",
    (RecordRow.status < _FAILED) | (RecordRow.status >= _LEFT),
)  # fmt: skip


def _requests(store: Store, since: datetime | None) -> Iterator[Asked]:
    """Yield the requests of named users that were answered, failed, or were left by the client."""
    for row in in_time(store, _COLUMNS, _LOOKED_AT, None if since is None else (since, "")):
        yield _asked(row)


def _last_requests(store: Store, since: datetime, until: datetime) -> list[Asked]:
    """Return the last request of each user from `since` to before `until`."""
    at = RecordRow.at
    user = (RecordRow.deployment, RecordRow.key_name, RecordRow.user)
    place = func.row_number().over(partition_by=user, order_by=(at.desc(), RecordRow.id.desc()))
    ranked = (
        select(RecordRow.id, place.label("place"))
        .where(*_LOOKED_AT, at >= since, at < until)
        .subquery()
    )
    query = select(*_COLUMNS).where(
        RecordRow.id.in_(select(ranked.c.id).where(ranked.c.place == 1))
    )
    with store.session() as session:
        return [_asked(row) for row in session.execute(query)]


def _asked(row: Any) -> Asked:
    text = next((m["content"] for m in reversed(row.messages) if m["role"] == "user"), "")
    user = (row.deployment, row.key_name, row.user)
    return Asked(row.id, user, row.at, row.latency_ms / 1000, row.status, text)


def _keep(store: Store, part: Sequence[Read]) -> tuple[int, int]:
    """Bring the signals of these records to what was read; return how many came and went."""
    wanted = {row["key"]: row for one in part for row in _rows(one)}
    names = [one.record for one in part]
    mine = SignalRow.record.in_(names) & (SignalRow.author == TRAFFIC)
    with store.session() as session:
        query = select(SignalRow.key, SignalRow.value, SignalRow.at).where(mine)
        there = {row.key: (row.value, row.at) for row in session.execute(query)}
    stale = [key for key in there if key not in wanted]
    fresh = [row for key, row in wanted.items() if there.get(key) != (row["value"], row["at"])]
    if fresh or stale:
        table: Any = SignalRow.__table__
        add = insert_into(store.engine, table)
        add = add.on_conflict_do_update(
            index_elements=[table.c.key],
            set_={"value": add.excluded.value, "at": add.excluded.at},
        )
        with store.begin(lazy=True) as session:  # what is lost, the next look reads again
            if stale:
                session.execute(delete(SignalRow).where(SignalRow.key.in_(stale)))
            if fresh:
                session.execute(add, fresh)
    return len(fresh), len(stale)


def _rows(one: Read) -> Iterator[dict[str, Any]]:
    """Yield the signals of a record as the store keeps them: one row a signal, whatever it says."""
    for kind, value, at in one.signals:
        yield {
            "key": content_hash([one.record, kind, TRAFFIC]),
            "record": one.record,
            "kind": kind,
            "explicit": False,
            "value": {"value": value},
            "author": TRAFFIC,
            "at": at,
        }
