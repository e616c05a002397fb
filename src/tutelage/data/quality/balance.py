"""How the rows are spread: over labels, over refusals, and against what production really asks.

It reads no store: workflows bring the rows of the data set and of production as examples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from tutelage.core import html
from tutelage.core.example import Example
from tutelage.data.filters.statistics import FEW_A_CLASS, IMBALANCE, refuses
from tutelage.data.quality.agreement import wilson
from tutelage.data.quality.two_sample import (
    Separability,
    Topic,
    Vocabulary,
    sample,
    separability,
    topics,
    vocabulary,
)
from tutelage.data.stability import NOTABLE, by_chance, length_shares, stability

LEAST = 50  # requests, and rows, that a comparison takes
_TOLD_APART = 0.6  # AUC from which on the sets differ enough to matter
_SURE = 0.01  # p below which a difference is no chance
_TOPIC_RATIO = 1.5  # a topic's share over the other set's
_TOPIC_POINTS = 0.02  # and how many points lie between them, at least
_NEW_WORDS = 0.03  # share of new words above the usual one that is said
_LABELS = 200  # more labels than this are not compared one by one

Verdict = Literal["alike", "differs", "too_few", "no_traffic"]


@dataclass(frozen=True)
class Classes:
    """Rows a label. `evenness` is the entropy over its greatest value: 1 is all alike (Pielou)."""

    counts: dict[str, int]
    ratio: float  # largest over smallest
    evenness: float
    few: tuple[str, ...]  # labels with fewer than 10 rows
    missing: tuple[str, ...]  # labels of the list without a row

    @property
    def flagged(self) -> bool:
        """Whether the sizes differ much, or labels have few rows or none."""
        return self.ratio >= IMBALANCE or bool(self.few or self.missing)


@dataclass(frozen=True)
class Refusals:
    """Refusing answers: the share with its 95 % interval (Wilson), and the limit."""

    count: int
    rows: int
    low: float
    high: float
    limit: float

    @property
    def share(self) -> float:
        """Refusing answers over all."""
        return self.count / self.rows if self.rows else 0.0

    @property
    def flagged(self) -> bool:
        """Whether the share is above the limit."""
        return self.share > self.limit


@dataclass(frozen=True)
class Feature:
    """One property in the data and in production, and how far the two distributions are apart.

    `index` is the population stability index, `chance` what it stays under if nothing differs.
    """

    name: str
    index: float
    chance: float
    detail: str

    @property
    def moved(self) -> bool:
        """Whether the difference is large and no chance."""
        return self.index > max(NOTABLE, self.chance)


@dataclass(frozen=True)
class Representativeness:
    """The data against production. `sentences` say the same in words, the gravest first."""

    verdict: Verdict
    rows: int
    requests: int
    apart: Separability | None = None
    features: tuple[Feature, ...] = ()
    topics: tuple[Topic, ...] = ()
    words: Vocabulary | None = None
    unlabelled: int = 0  # requests whose answer is no label
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Balance:
    """Everything about the spread of the rows."""

    rows: int
    refusals: Refusals
    production: Representativeness
    classes: Classes | None = None
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        found = asdict(self)
        found["refusals"] |= {"share": self.refusals.share, "flagged": self.refusals.flagged}
        if self.classes is not None:
            found["classes"]["flagged"] = self.classes.flagged
        for entry, feature in zip(
            found["production"]["features"], self.production.features, strict=True
        ):
            entry["moved"] = feature.moved
        for entry, topic in zip(found["production"]["topics"], self.production.topics, strict=True):
            entry["ratio"] = topic.ratio if math.isfinite(topic.ratio) else None
            entry["differs"] = topic_differs(topic)
        return found


def classes(rows: Sequence[Example], labels: Sequence[str] = ()) -> Classes | None:
    """Return how the rows spread over the labels; None if fewer than two labels are there."""
    counts = Counter(row.label for row in rows if row.label is not None)
    if len(counts) < 2:
        return None
    sizes = np.array(list(counts.values()), dtype=np.float64)
    shares = sizes / sizes.sum()
    evenness = float(-(shares * np.log(shares)).sum() / np.log(len(sizes)))
    return Classes(
        counts=dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))),
        ratio=float(sizes.max() / sizes.min()),
        evenness=evenness,
        few=tuple(sorted(label for label, count in counts.items() if count < FEW_A_CLASS)),
        missing=tuple(label for label in labels if label not in counts),
    )


def refusals(rows: Sequence[Example], limit: float) -> Refusals:
    """Return the share of answers that refuse, disclaim, or do not know."""
    count = sum(refuses(row) for row in rows)
    low, high = wilson(count, len(rows))
    return Refusals(count, len(rows), low, high, limit)


def represent(
    rows: Sequence[Example], production: Sequence[Example], seed: int = 7
) -> Representativeness:
    """Return how the data's inputs, answers and labels compare with production's.

    Under 50 rows or requests nothing is concluded. Of more than 2,000 a side, 2,000 are drawn.
    """
    if not production:
        return Representativeness("no_traffic", len(rows), 0)
    if min(len(rows), len(production)) < LEAST:
        told = f"{len(production):,} requests and {len(rows):,} rows; {LEAST} of each are needed"
        return Representativeness("too_few", len(rows), len(production), sentences=(told,))
    ours = [rows[i] for i in sample([row.input_text for row in rows], seed)]
    theirs = [production[i] for i in sample([row.input_text for row in production], seed)]
    one, two = ([row.input_text for row in side] for side in (ours, theirs))
    apart = separability(one, two, seed)
    found = topics(one, two, seed)
    words = vocabulary(one, two, seed)
    features = tuple(_features(rows, production))
    differ = (
        (apart.p < _SURE and apart.auc >= _TOLD_APART)
        or any(feature.moved for feature in features)
        or any(map(topic_differs, found))
    )
    sentences = tuple(_sentences(apart, features, found, words, differ))
    return Representativeness(
        verdict="differs" if differ else "alike",
        rows=len(rows),
        requests=len(production),
        apart=apart,
        features=features,
        topics=tuple(found),
        words=words,
        unlabelled=_unlabelled(rows, production),
        sentences=sentences,
    )


def topic_differs(topic: Topic) -> bool:
    """Return whether one set is notably and certainly more about a topic than the other."""
    small, large = sorted((topic.first, topic.second))
    far = large >= _TOPIC_RATIO * small and large - small >= _TOPIC_POINTS
    return far and topic.p < _SURE


def _unlabelled(rows: Sequence[Example], production: Sequence[Example]) -> int:
    if all(row.label is None for row in rows):
        return 0
    return sum(row.label is None for row in production)


def _features(rows: Sequence[Example], production: Sequence[Example]) -> Iterator[Feature]:
    yield _lengths(
        "input lengths",
        [len(row.input_text) for row in rows],
        [len(row.input_text) for row in production],
    )
    labels = sorted({row.label for row in rows if row.label is not None})
    if not 2 <= len(labels) <= _LABELS:
        answers = ([len(row.answer or "") for row in side] for side in (rows, production))
        yield _lengths("answer lengths", *answers)
        return
    one = Counter(row.label for row in rows if row.label is not None)
    two = Counter(row.label for row in production if row.label is not None)
    if two.total() < LEAST:
        return
    labels = sorted({*labels, *two} - {None})
    before, after = (
        np.array([counts[label] for label in labels], dtype=np.float64) / counts.total()
        for counts in (one, two)
    )
    most = int(np.abs(after - before).argmax())
    yield Feature(
        "label shares",
        stability(before, after),
        by_chance(len(labels), one.total(), two.total()),
        f"{labels[most]!r} is {percent(after[most])} of the model's answers in production, "
        f"{percent(before[most])} of the data's",
    )


def _lengths(name: str, ours: Sequence[int], theirs: Sequence[int]) -> Feature:
    one, two = np.array(ours), np.array(theirs)
    before, after = length_shares(one, two)
    detail = f"median {np.median(two):,.0f} characters in production, {np.median(one):,.0f} in data"
    return Feature(
        name, stability(before, after), by_chance(len(before), len(one), len(two)), detail
    )


def _sentences(
    apart: Separability,
    features: Sequence[Feature],
    found: Sequence[Topic],
    words: Vocabulary,
    differ: bool,
) -> Iterator[str]:
    told = f"AUC {apart.auc:.2f}, {apart.low:.2f} to {apart.high:.2f}; chance is 0.50"
    if differ:
        yield f"The data differ from what production asks ({told})."
    else:
        yield f"The data look like what production asks ({told})."
    yield from (_topic_sentence(topic) for topic in found if topic_differs(topic))
    yield from (
        f"The {feature.name} differ: {feature.detail} (stability index {feature.index:.2f})."
        for feature in features
        if feature.moved
    )
    if words.unknown - words.usual > _NEW_WORDS and words.words:
        yield (
            f"{percent(words.unknown)} of production's words are new to the data, where "
            f"{percent(words.usual)} would be usual: {', '.join(words.words[:6])}."
        )


def _topic_sentence(topic: Topic) -> str:
    about = ", ".join(topic.words)
    shares = f"{percent(topic.second)} of requests, {percent(topic.first)} of rows"
    if topic.second > topic.first:
        example = _short(topic.second_example)
        if not topic.first:
            return f"Production asks about {about} ({shares}), and no row does: e.g. {example}."
        return (
            f"Production asks {topic.ratio:.1f} × more about {about} than the data ({shares}): "
            f"e.g. {example}."
        )
    example = _short(topic.first_example)
    if not topic.second:
        return f"The data ask about {about} ({shares}), and no request does: e.g. {example}."
    return f"The data ask {1 / topic.ratio:.1f} × more about {about} ({shares}): e.g. {example}."


def percent(share: float) -> str:
    """Return a share as people read it: 18 %, and 1.4 % where small."""
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return f"“{flat[:90]}…”" if len(flat) > 90 else f"“{flat}”"


_TONES: dict[Verdict, html.Tone] = {
    "alike": "good", "differs": "warn", "too_few": "note", "no_traffic": "note",
}  # fmt: skip
_HEADLINES = {
    "alike": "The rows look like what production asks",
    "differs": "The rows differ from what production asks",
    "too_few": "Too little traffic to compare with",
    "no_traffic": "No production traffic yet",
}
_SHOWN = 8  # topics in the table


def section(found: Balance) -> list[html.Html]:
    """Return the part of a report that shows the balance to a domain expert."""
    production = found.production
    parts: list[html.Html] = []
    if found.classes is not None:
        parts.append(_classes_section(found.classes))
    refused = found.refusals
    if refused.count:
        told = (
            f"{refused.count:,} of {refused.rows:,} answers refuse or say that they do not know: "
            f"{percent(refused.share)} ({percent(refused.low)} to {percent(refused.high)}). "
            f"The limit is {percent(refused.limit)}."
        )
        parts.append(html.section("Refusals", html.paragraph(told)))
    if production.verdict != "no_traffic":
        parts += production_section(production)
    return parts


def _classes_section(found: Classes) -> html.Html:
    sizes = [(label, [count]) for label, count in list(found.counts.items())[:40]]
    lead = (
        f"{len(found.counts):,} labels; the largest has {found.ratio:.1f} times the rows of the "
        f"smallest. Evenness {found.evenness:.2f} (1 is all alike)."
    )
    notes = []
    if found.few:
        notes.append(f"Fewer than {FEW_A_CLASS} rows: {', '.join(found.few[:20])}.")
    if found.missing:
        notes.append(f"No row at all: {', '.join(found.missing[:20])}.")
    return html.section(
        "Rows a label",
        html.stacked(sizes, unit=" rows"),
        *(html.paragraph(note) for note in notes),
        lead=lead,
    )


def production_section(found: Representativeness) -> list[html.Html]:
    """Return the part of a report that compares the rows with production."""
    parts = [html.verdict(_TONES[found.verdict], _HEADLINES[found.verdict], *found.sentences[:6])]
    if found.topics:
        rows = [
            (
                ", ".join(topic.words),
                percent(topic.first),
                percent(topic.second),
                html.badge("warn", "differs") if topic_differs(topic) else "",
                _short(topic.second_example or topic.first_example),
            )
            for topic in found.topics[:_SHOWN]
        ]
        table = html.table(("about", "of the rows", "of the requests", "", "for example"), rows)
        parts.append(
            html.section(
                "What is asked about",
                table,
                lead=f"{found.rows:,} rows and {found.requests:,} requests, sorted into topics by "
                "their words; the greatest differences first.",
            )
        )
    return parts
