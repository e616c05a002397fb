"""How strongly each signal speaks against each text's answer, and what they come to together.

Every strength is 0..1, an array over the texts of a scan. Words for a person are made in words.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.data.linear import Vectors
from tutelage.feedback.mining.known import Knowledge
from tutelage.feedback.mining.mined import Kind
from tutelage.feedback.mining.scan import Traffic, fetch, numbers
from tutelage.feedback.mining.served import GONE
from tutelage.store.base import Store
from tutelage.store.records import RecordRow

Source = Literal[
    "failed", "users", "live", "judges", "releases", "against", "varies", "doubt", "entropy",
    "novel",
]  # fmt: skip
# The chance that an answer is wrong where this signal alone speaks, at its strongest: priors that
# say what counts for more, and no measurement.
WEIGHTS: dict[Source, tuple[Kind, float]] = {
    "failed": ("failure", 0.8),
    "users": ("low_score", 0.8),
    "live": ("low_score", 0.6),
    "judges": ("disagreement", 0.5),
    "releases": ("disagreement", 0.6),
    "against": ("disagreement", 0.6),
    "varies": ("uncertainty", 0.5),
    "entropy": ("uncertainty", 0.5),
    "doubt": ("uncertainty", 0.5),
    "novel": ("novelty", 0.4),
}
HALF_LIFE_S = 90 * 86_400.0  # after which a text counts half: users ask other things
OFTEN = 0.25  # power of how often a text is asked: 16 times counts double, as neighbours count too
SURE = 0.8  # margin of the two likeliest labels from which on there is no doubt
LEAST = 0.1  # strength below which a signal is no reason
_COMPARED = 4  # answers to one text that are compared as texts
_SOFTENED = 5000  # texts whose answers are compared as texts

Floats = NDArray[np.float32]


@dataclass
class Strengths:
    """One array a source, (M,), and the record that each comes from, where one does."""

    values: dict[Source, Floats]
    record: dict[Source, NDArray[np.int64]] = field(default_factory=dict)

    def score(self) -> Floats:
        """Return the chance of a wrong answer: 1 - prod(1 - weight · strength) over the sources.

        A noisy-or (Pearl 1988, section 4.3.2): independent reasons, any of which may be right.
        """
        size = len(next(iter(self.values.values())))
        sound = np.ones(size, np.float32)
        for source, strength in self.values.items():
            sound *= 1 - WEIGHTS[source][1] * strength
        score: Floats = (1 - sound).astype(np.float32)
        return score

    def reasons_of(self, text: int) -> list[tuple[Source, float]]:
        """Return the sources that speak against a text, the weightiest first."""
        own = [(name, float(values[text])) for name, values in self.values.items()]
        own = [pair for pair in own if pair[1] >= LEAST]
        return sorted(own, key=lambda pair: -WEIGHTS[pair[0]][1] * pair[1])


class Looker:
    """Collects what the dataset says of each text while the traffic is read."""

    def __init__(self, knowledge: Knowledge | None) -> None:
        self._knowledge = knowledge
        self._novel: list[Floats] = []
        self._doubt: list[Floats] = []
        self._against: list[Floats] = []

    def take(self, vectors: Vectors, labels: Sequence[str | None]) -> None:
        """Look at new texts, shape (N, D), and the labels that their newest answers gave."""
        known = self._knowledge
        if known is None:
            zero = np.zeros(len(vectors), np.float32)
            self._novel.append(zero)
            self._doubt.append(zero)
            self._against.append(zero)
            return
        look = known.look(vectors, labels)
        named = look.top >= 0
        margin = look.chance - look.runner
        self._novel.append(look.novelty)
        self._doubt.append(np.where(named, np.maximum(1 - margin / SURE, 0), 0).astype(np.float32))
        against = np.where(np.isnan(look.own), 0, look.chance - look.own)
        self._against.append(np.clip(against, 0, 1).astype(np.float32))

    def strengths(self) -> dict[Source, Floats]:
        """Return novelty, doubt and contradiction, each (M,)."""
        parts: dict[Source, list[Floats]] = {
            "novel": self._novel, "doubt": self._doubt, "against": self._against,
        }  # fmt: skip
        return {
            name: np.concatenate(part) if part else np.zeros(0, np.float32)
            for name, part in parts.items()
        }


def freshness(traffic: Traffic, until: datetime) -> Floats:
    """Return how much each text still counts: half as much for each 90 days since it was asked."""
    age_s = until.timestamp() - numbers(traffic.last, np.float64)
    fresh: Floats = np.exp2(-np.maximum(age_s, 0) / HALF_LIFE_S).astype(np.float32)
    return fresh


def from_failures(traffic: Traffic) -> tuple[Floats, NDArray[np.int64]]:
    """Return the failures of a scan, and the record that each is of."""
    return (
        numbers(traffic.failed, np.float32).copy(),
        numbers(traffic.failed_at, np.int32).astype(np.int64),
    )


def from_entropy(traffic: Traffic) -> tuple[Floats, NDArray[np.int64]]:
    """Return how far the model wavered, 1 at a coin's toss a token (ln 2 nats), and where."""
    entropy = numbers(traffic.entropy, np.float32)
    strength: Floats = np.minimum(entropy / np.float32(math.log(2)), 1)
    return strength, numbers(traffic.entropy_at, np.int32).astype(np.int64)


def from_scores(traffic: Traffic, scores: Mapping[str, float]) -> tuple[Floats, NDArray[np.int64]]:
    """Return how low the scores of records are by text: 0 from 0.5 up, 1 at 0; and whose it is."""
    low, record, _ = _lows(traffic, scores)
    return low.astype(np.float32), record


def _lows(
    traffic: Traffic, scores: Mapping[str, float]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return how low the lowest score of each text is, whose it is (-1: nobody's), and the sum."""
    size = len(traffic.keys)
    low, summed = np.zeros(size), np.zeros(size)
    record = np.full(size, -1, np.int64)
    for index, name in enumerate(traffic.ids if scores else ()):
        score = scores.get(name)
        if score is None:
            continue
        strength, text = 1 - 2 * score, traffic.text[index]
        summed[text] += max(strength, 0.0)
        if strength > low[text]:
            low[text], record[text] = strength, index
    return low, record, summed


def from_verdicts(
    traffic: Traffic, scores: Mapping[str, float]
) -> tuple[Floats, NDArray[np.int64]]:
    """Return how low users' verdicts are a time that a text was asked, and the lowest one's record.

    One complaint of ten that had the same answer says less than one of one: a complaint may be a
    slip, and who has none says nothing.
    """
    _, record, summed = _lows(traffic, scores)
    times = np.maximum(numbers(traffic.count, np.int32), 1)
    strength: Floats = np.minimum(summed / times, 1).astype(np.float32)
    return strength, record


def from_answers(traffic: Traffic, served: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return how far releases differ on each text, and how far one release differs with itself.

    Releases differ (1) where their usual answers do. Of one release it is twice the share of
    answers besides the usual one, 1 at most. Copies to a candidate (shadow) count. What only shows
    in answers of releases that serve no more, where `served`, (N,), is false, counts a quarter.
    """
    told = numbers(traffic.answer, np.int64) != 0
    every = _from_answers(traffic, np.flatnonzero(told))
    if served.all():
        return every
    now = _from_answers(traffic, np.flatnonzero(told & served))
    apart, varies = (np.maximum(GONE * a, b) for a, b in zip(every, now, strict=True))
    return apart, varies


def _from_answers(traffic: Traffic, told: NDArray[np.int64]) -> tuple[Floats, Floats]:
    size = len(traffic.keys)
    apart, varies = np.zeros(size, np.float32), np.zeros(size, np.float32)
    text, answer = numbers(traffic.text, np.int32), numbers(traffic.answer, np.int64)
    release = numbers(traffic.release, np.int16)
    if not len(told):
        return apart, varies
    order = told[np.lexsort((answer[told], release[told], text[told]))]
    t, r, a = text[order], release[order], answer[order]
    group = np.flatnonzero(_changes(t, r, a))  # starts of equal (text, release, answer)
    counts = np.diff(np.append(group, len(order)))
    t, r, a = t[group], r[group], a[group]
    own = np.flatnonzero(_changes(t, r))  # starts of equal (text, release)
    most, total = np.maximum.reduceat(counts, own), np.add.reduceat(counts, own)
    np.maximum.at(varies, t[own], np.minimum(2 * (1 - most / total), 1).astype(np.float32))
    sizes = np.diff(np.append(own, len(t)))
    is_most = counts == np.repeat(most, sizes)
    usual = np.minimum.reduceat(np.where(is_most, a, np.iinfo(np.int64).max), own)
    by_text = np.flatnonzero(_changes(t[own]))
    differ = np.minimum.reduceat(usual, by_text) != np.maximum.reduceat(usual, by_text)
    apart[t[own][by_text]] = differ
    return apart, varies


def _changes(*columns: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return where a row of sorted columns differs from the one before; the first does."""
    new = np.ones(len(columns[0]), dtype=bool)
    if len(new) > 1:
        new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return new


def soften(store: Store, traffic: Traffic, arrays: Iterable[Floats]) -> None:
    """Scale strengths of answers that differ as texts by how different the texts are, in place.

    Only the texts asked most are compared; of the others half is taken.
    """
    arrays = list(arrays)
    flagged = np.flatnonzero(np.logical_or.reduce([values > 0 for values in arrays]))
    count = numbers(traffic.count, np.int32)
    chosen = flagged[np.argsort(-count[flagged], kind="stable")][:_SOFTENED]
    scale = np.full(len(traffic.keys), 0.5, np.float32)
    for text, apart in _distances(store, traffic, chosen).items():
        scale[text] = apart
    for values in arrays:
        values *= scale


def _distances(store: Store, traffic: Traffic, texts: NDArray[np.int64]) -> dict[int, float]:
    """Return how different the answers to each text are, 0..1, averaged over pairs."""
    from rapidfuzz.fuzz import ratio

    wanted = set(texts.tolist())
    records: dict[int, list[str]] = {}
    for index, text in enumerate(traffic.text):
        if text in wanted and traffic.answer[index] and len(records.get(text, ())) < _COMPARED:
            records.setdefault(text, []).append(traffic.ids[index])
    of = {name: text for text, names in records.items() for name in names}
    answers: dict[int, list[str]] = {}
    for row in fetch(store, list(of), (RecordRow.id, RecordRow.response)):
        answers.setdefault(of[row.id], []).append(row.response)
    return {
        text: math.fsum(1 - ratio(a, b) / 100 for a, b in pairs) / len(pairs)
        for text, own in answers.items()
        if (pairs := list(combinations(own, 2)))
    }
