"""Read production once, in chunks: what is asked how often, by whom answered how.

Of a million records no row object lives longer than its chunk; texts are embedded on the way and
forgotten. It does not say which of them matter.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from tutelage.core.example import SPLITS, normalise
from tutelage.feedback.mining.failure import Forms, failure_of
from tutelage.release.evidence import TURNED_AWAY
from tutelage.store.base import Store
from tutelage.store.in_time import chunks_in_time
from tutelage.store.records import RecordRow

CHUNK = 20_000  # records read at once
SAMPLE = 20_000  # texts that a space is fitted on
SHADOW = "shadow"
_AT_ONCE = 500  # ids in one question to the store
LONGEST = 2000  # characters of a text that are looked at
_COLUMNS = (
    RecordRow.id, RecordRow.at, RecordRow.release, RecordRow.arm, RecordRow.split,
    RecordRow.status, RecordRow.finish_reason, RecordRow.checks, RecordRow.messages,
    RecordRow.response, RecordRow.entropy,
)  # fmt: skip

Told = Callable[[int, int], None]
OnTexts = Callable[[Sequence[str], Sequence[str | None]], None]


@dataclass(frozen=True)
class Window:
    """The time that is looked at: `since` is included, `until` is not."""

    since: datetime | None
    until: datetime


@dataclass
class Traffic:
    """What was read. Records: `ids`, `text` (N,), `answer` (N,), `release` (N,), `shadow` (N,).

    Texts: `keys` (hash of the normalised text), `newest` (M,) its newest record, `count`
    (M,) how often clients asked it, `last` (M,) when it was asked last (POSIX seconds), `side` (M,)
    the most held-out side it was seen on (0 train, 1 validation, 2 test), `failed` (M,) and
    `failed_at` (M,) the worst failure and its record, `entropy` (M,) and `entropy_at` (M,) the
    highest mean entropy of tokens and its record.
    """

    ids: list[str] = field(default_factory=list)
    text: array[int] = field(default_factory=lambda: array("i"))
    answer: array[int] = field(default_factory=lambda: array("q"))
    release: array[int] = field(default_factory=lambda: array("h"))
    shadow: array[int] = field(default_factory=lambda: array("b"))
    keys: dict[int, int] = field(default_factory=dict)
    newest: array[int] = field(default_factory=lambda: array("i"))
    count: array[int] = field(default_factory=lambda: array("i"))
    last: array[float] = field(default_factory=lambda: array("d"))
    side: array[int] = field(default_factory=lambda: array("b"))
    failed: array[float] = field(default_factory=lambda: array("f"))
    failed_at: array[int] = field(default_factory=lambda: array("i"))
    entropy: array[float] = field(default_factory=lambda: array("f"))
    entropy_at: array[int] = field(default_factory=lambda: array("i"))
    releases: list[str] = field(default_factory=list)
    untexted: int = 0  # records whose texts the log does not keep, or that end with no question


def text_key(text: str) -> int:
    """Return the number of a text: equal for texts that differ in case and space only."""
    digest = hashlib.blake2b(normalise(text).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big", signed=True)


def asked_text(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what the user side of a request says, or None if it does not end with a question."""
    if not messages or messages[-1].get("role") != "user":
        return None
    text = "\n".join(str(m.get("content") or "") for m in messages if m.get("role") != "system")
    return text if text.strip() else None


def count_records(store: Store, window: Window) -> int:
    """Return how many records that reached a model lie in the window."""
    with store.session() as session:
        query = select(func.count()).select_from(RecordRow).where(*_inside(window))
        return int(session.scalar(query) or 0)


def sample_texts(store: Store, window: Window, *, most: int = SAMPLE, seed: int = 7) -> list[str]:
    """Return the texts of records drawn at random, at most so many, each text once."""
    with store.session() as session:
        query = select(RecordRow.id).where(*_inside(window), RecordRow.arm != SHADOW)
        ids = sorted(session.scalars(query.execution_options(yield_per=CHUNK)))
    if len(ids) > most:
        chosen = np.random.default_rng(seed).choice(len(ids), most, replace=False)
        ids = [ids[index] for index in np.sort(chosen)]
    found: dict[str, None] = {}
    for row in fetch(store, ids, (RecordRow.messages,)):
        text = asked_text(row.messages)
        if text is not None:
            found[text[:LONGEST]] = None
    return list(found)


def fetch(store: Store, ids: Sequence[str], columns: Sequence[Any] = _COLUMNS) -> Iterator[Any]:
    """Yield rows of these records, of all columns that mining reads unless others are named."""
    for start in range(0, len(ids), _AT_ONCE):
        query = select(*columns).where(RecordRow.id.in_(ids[start : start + _AT_ONCE]))
        with store.session() as session:
            yield from session.execute(query.order_by(RecordRow.id)).all()


def scan(
    store: Store, window: Window, forms: Forms, on_texts: OnTexts, told: Told = lambda *_: None
) -> Traffic:
    """Return what production asked and got in the window, newest first.

    `on_texts(texts, labels)` is given each new text once, with the label its newest answer gave, in
    the order of their numbers. `told(done, rows)` hears of each chunk.
    """
    traffic = Traffic()
    releases: dict[str, int] = {}
    for rows in chunks(store, window, newest=True):
        texts: list[str] = []
        labels: list[str | None] = []
        for row in sorted(rows, key=lambda row: row.arm == SHADOW):  # the answer that was given
            text = asked_text(row.messages)
            if text is None:
                traffic.untexted += 1
                continue
            number = releases.setdefault(row.release, len(releases))
            if _take(traffic, row, text, number, forms):
                texts.append(text[:LONGEST])
                labels.append(forms.label(row.response))
        if texts:
            on_texts(texts, labels)
        told(len(traffic.ids) + traffic.untexted, len(rows))
    traffic.releases = list(releases)
    return traffic


def chunks(store: Store, window: Window, *, newest: bool = False) -> Iterator[Sequence[Any]]:
    """Yield the records of a window by time, a chunk a transaction; with `newest` backwards."""
    return chunks_in_time(store, _COLUMNS, _inside(window), newest=newest, size=CHUNK)


def _inside(window: Window) -> list[Any]:
    inside = [RecordRow.status.not_in(TURNED_AWAY), RecordRow.at < window.until]
    return inside if window.since is None else [*inside, RecordRow.at >= window.since]


def _take(traffic: Traffic, row: Any, text: str, release: int, forms: Forms) -> bool:
    """Add a record; return whether its text is new."""
    key = text_key(text)
    own = traffic.keys.get(key)
    fresh = own is None
    if own is None:
        own = traffic.keys[key] = len(traffic.keys)
        traffic.newest.append(len(traffic.ids))
        traffic.count.append(0)
        traffic.side.append(0)
        traffic.last.append(row.at.timestamp())  # the newest record comes first
        traffic.failed.append(0.0)
        traffic.failed_at.append(-1)
        traffic.entropy.append(0.0)
        traffic.entropy_at.append(-1)
    shadow = row.arm == SHADOW
    traffic.count[own] += not shadow
    traffic.side[own] = max(traffic.side[own], SPLITS.index(row.split))
    strength, _ = failure_of(row, forms.problem)
    if strength > traffic.failed[own]:
        traffic.failed[own], traffic.failed_at[own] = strength, len(traffic.ids)
    if row.entropy is not None and row.entropy > traffic.entropy[own]:
        traffic.entropy[own], traffic.entropy_at[own] = row.entropy, len(traffic.ids)
    traffic.ids.append(row.id)
    traffic.text.append(own)
    traffic.answer.append(_answer_key(row, forms))
    traffic.release.append(release)
    traffic.shadow.append(shadow)
    return fresh


def _answer_key(row: Any, forms: Forms) -> int:
    """Return a number that equal answers share; 0 for none."""
    if row.status != 200 or not row.response.strip():
        return 0
    return text_key(forms.same_as(row.response)) or 1


def numbers(values: array[Any], kind: Any) -> NDArray[Any]:
    """Return an array's values as numpy sees them, without a copy."""
    return np.frombuffer(values, dtype=kind) if len(values) else np.zeros(0, dtype=kind)
