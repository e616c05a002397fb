"""Feedback as a storm of calls: repeated, out of order, of unknown records, wrong in every way.

It knows what must be in the store when the calls are acknowledged, and what each call must get.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from tutelage.core.artifact import content_hash, utc_now
from tutelage.feedback.outcome import goodness
from tutelage.feedback.signals import DECLARED
from tutelage.store.base import Store
from tutelage.store.records import RecordRow, SignalRow

RECORDS, UNKNOWN = 400, 100
START = datetime(2026, 3, 1, tzinfo=UTC)
WRONG: tuple[dict[str, Any], ...] = (
    {"rating": 7}, {"rating": [1]}, {"edit": "purple"}, {"edit": 4}, {"comment": ""},
    {"signals": {"resolved": "yes"}}, {"signals": {"time_to_next": -1}}, {"signals": [3]},
    {"signals": {"Not A Name": 1}}, {"signals": {"rating": 1}}, {"rating": 1, "at": "noon"},
    {"rating": 1, "author": {"name": "bo"}}, {"record_id": 5, "rating": 1}, {},
    {"record_id": "no/id", "rating": 1}, {"rating": 1, "response_id": "rec_other"},
)  # fmt: skip


Told = tuple[str, str, str, Any, datetime]  # record, author, kind, value, newest time


@dataclass(eq=False)
class Call:
    """One request: its body, its idempotency key, and the status it must get."""

    body: dict[str, Any]
    key: str | None = None
    status: int = 200


@dataclass
class Storm:
    """The calls, and what must be in the store when all are acknowledged."""

    calls: list[Call] = field(default_factory=list)
    said: dict[str, Told] = field(default_factory=dict)  # by the signal's key

    def add(self, record: str, author: str, kind: str, value: Any, at: datetime) -> dict[str, Any]:
        key = content_hash([record, kind, value, author])
        before = self.said.get(key)
        when = max(at, before[4]) if before else at
        self.said[key] = (record, author, kind, value, when)
        own = {kind: value} if kind in ("rating", "comment") else {"signals": {kind: value}}
        zone = timedelta(hours=hash_of(record) % 5 - 2)
        shown = f"{(at + zone).replace(tzinfo=None).isoformat()}{sign(zone)}"
        return {"record_id": record, "author": author, "at": shown, **own}


def hash_of(text: str) -> int:
    return sum(text.encode())


def sign(zone: timedelta) -> str:
    hours = int(zone.total_seconds() // 3600)
    return f"{'+' if hours >= 0 else '-'}{abs(hours):02d}:00"


def make_storm(count: int, seed: int) -> Storm:
    """Return at least `count` calls in a random order; one statement in ten is wrong.

    Good ones come one to three times, three in ten with an idempotency key. The first call and
    the last one share a key and differ in content.
    """
    draw, storm = random.Random(seed), Storm()
    while len(storm.calls) < count:
        record = f"rec_{draw.randrange(RECORDS + UNKNOWN)}"
        if draw.random() < 0.1:
            storm.calls.append(Call({"record_id": record, **draw.choice(WRONG)}, status=400))
            continue
        kind, value = draw.choice(
            [("rating", draw.choice([0.0, 0.5, 1.0])), ("resolved", draw.random() < 0.5),
             ("retried", draw.randrange(3)), ("dwell", draw.randrange(100)), ("comment", "so so")]
        )  # fmt: skip
        at = START + timedelta(seconds=draw.randrange(10_000_000))
        body = storm.add(record, f"user-{draw.randrange(3)}", kind, value, at)
        key = f"key-{len(storm.calls)}" if draw.random() < 0.3 else None
        times = draw.choice([1, 1, 2, 3])
        storm.calls += [Call(body, key) for _ in range(times)]
    draw.shuffle(storm.calls)
    other = Call({"record_id": "rec_1", "comment": "other"}, "key-reused", status=422)
    first = Call(storm.add("rec_1", "user-0", "comment", "first", START), "key-reused")
    storm.calls = [first, *storm.calls, other]
    return storm


def add_records(store: Store) -> None:
    """Put the known records into the store."""
    with store.begin() as session:
        session.add_all(
            RecordRow(
                id=f"rec_{number}", deployment="colours", release="r", arm="stable",
                split="train", group_key="g", messages=[], response="", finish_reason="stop",
                status=200, latency_ms=1, prompt_tokens=1, completion_tokens=1, checks={},
                at=utc_now(),
            )
            for number in range(RECORDS)
        )  # fmt: skip


def kept(store: Store) -> dict[str, Told]:
    """Return the signals in the store as a storm says them."""
    with store.session() as session:
        return {
            row.key: (row.record, row.author or "", row.kind, row.value["value"], row.at)
            for row in session.query(SignalRow)
        }


async def send(url: str, storm: Storm, *, at_once: int = 48) -> Counter[tuple[int, int]]:
    """Send the calls, the first and last alone; return how often each (expected, given) came."""
    first, *calls, last = storm.calls
    found: Counter[tuple[int, int]] = Counter()
    for part in ([first], calls, [last]):
        found += await _send(url, part, at_once)
    return found


async def _send(url: str, calls: list[Call], at_once: int) -> Counter[tuple[int, int]]:
    found: Counter[tuple[int, int]] = Counter()
    rest = iter(calls)

    async def work(client: aiohttp.ClientSession) -> None:
        for call in rest:
            headers = {"idempotency-key": call.key} if call.key else {}
            async with client.post(url, json=call.body, headers=headers) as reply:
                await reply.read()
                found[call.status, reply.status] += 1

    connector = aiohttp.TCPConnector(limit=0)
    patience = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=patience) as client:
        await asyncio.gather(*(work(client) for _ in range(at_once)))
    return found


def expected_scores(storm: Storm) -> dict[str, float]:
    """Return the score of every known record, worked out from what was said alone."""
    newest: dict[tuple[str, str, str], tuple[datetime, str, Any]] = {}
    for key, (record, author, kind, value, at) in storm.said.items():
        place = (record, author, kind)
        newest[place] = max(newest.get(place, (START, "", None)), (at, key, value))
    sums: dict[str, list[tuple[float, float]]] = {}
    for (record, _, kind), (_, _, value) in newest.items():
        rule = DECLARED.get(kind)
        if rule and rule.direction and int(record[4:]) < RECORDS:
            good = goodness(value, rule)
            assert good is not None
            sums.setdefault(record, []).append((rule.weight, good))
    return {
        record: sum(w * g for w, g in parts) / sum(w for w, _ in parts)
        for record, parts in sums.items()
    }
